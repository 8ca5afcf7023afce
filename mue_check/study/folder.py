"""The setting of a study: where its records are, and what all its questions share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mue_check.axes import Ladder, Rung
from mue_check.errors import MueCheckError
from mue_check.judge.interval import Looks
from mue_check.judge.verdict import Verdict
from mue_check.records import Store
from mue_check.rules import Knob, Prescription, Rule, knob_factors
from mue_check.spec import Scenario
from mue_check.study.arm import AnyArm, Arm
from mue_check.study.asked import last_asked, record_question
from mue_check.study.comparison import DEFAULT_ROUTER, Comparison, Side, save_comparison
from mue_check.tiers import Task, Tier
from mue_check.user_code import UserCodeExit, no_exit


class AxisPoint(Protocol):
    """A place on an axis: a rung, or a size of a user's own model."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def size(self) -> int:
        """Where it is on the axis."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The folder of a study, into which a run writes its questions and their answers.

    ``command`` repeats the question. ``run`` is the run that asks (``study.asked.new_run``). Replicates have seeds
    from ``first_seed`` on.
    """

    root: Path
    command: str
    run: str = ""
    first_seed: int = 0

    @property
    def store(self) -> Store:
        """The records of this study."""
        return Store(self.root)

    def earlier_looks(self, name: str, looks: Looks) -> tuple[Looks, ...]:
        """The looks of earlier runs of the question of that name, where they differ from these."""
        before = last_asked(self.root, name)
        earlier = {*before.earlier_looks, before.looks} - {(), looks} if before and looks else set()
        return tuple(sorted(earlier))

    @contextmanager
    def asking(self, question: Comparison) -> Iterator[None]:
        """Record the question before the body measures it; the body stores its answer with ``keep``.

        The measured code may be a user's, and may raise what ends or skips a test, or the process (``SystemExit``,
        pytest's outcomes). That becomes a MueCheckError: only an answer ends a question.
        """
        self.open(question)
        try:
            with no_exit():
                yield
        except UserCodeExit as error:
            raise MueCheckError(f"{question.name}: while it was measured, user code raised {error}") from error

    def open(self, question: Comparison) -> None:
        """List the question in the study, and withdraw an earlier answer."""
        record_question(self.root, question, self.run)

    def save(self, answer: Comparison) -> None:
        """Write the answer to a question into the study."""
        save_comparison(self.root, answer)

    def rounds(
        self,
        measurement: str,
        rungs: Sequence[AxisPoint],
        arms: Sequence[AnyArm],
        looks: Looks,
        steps: tuple[int, ...] = (),
    ) -> Iterator[tuple[Side, ...]]:
        """Measure arms of one kind with more and more replicates, up to each of these numbers; the caller stops when it
        knows enough."""
        keys: list[list[str]] = [[] for _ in arms]
        first = 0
        for last in looks:
            cells = [arm.cells(measurement, [arm.base_value], range(first, last), steps) for arm in arms]
            arms[0].measure([cell for each in cells for cell in each], self.store)
            for known, each in zip(keys, cells, strict=True):
                known += [cell.key for cell in each]
            yield tuple(side_of(rung, arm, known) for rung, arm, known in zip(rungs, arms, keys, strict=True))
            first = last


@dataclass(frozen=True, kw_only=True)
class Study(Folder):
    """One study folder at one tier, on one corpus, under one rule. ``tolerance`` is in octaves.

    ``routing`` names how the mixtures route; the ladders hold the routing itself.
    """

    tier: Tier
    corpus: str
    rule: Rule
    tolerance: float
    routing: str = DEFAULT_ROUTER

    @property
    def corpus_name(self) -> str:
        """The corpus without its folder, fit for a file name."""
        return Path(self.corpus).name

    @property
    def few_looks(self) -> Looks:
        """The numbers of seeds at which cheap questions are judged."""
        low, high = self.tier.seeds, self.tier.max_seeds
        return tuple(dict.fromkeys((low, min(2 * low, high), high)))

    def with_rule(self, rule: Rule) -> "Study":
        """The same study under another rule."""
        return replace(self, rule=rule)

    def task(self, ladder: Ladder) -> Task:
        """How a ladder's reference trains."""
        return self.tier.task(self.corpus, ladder.regime)

    def scenario(self, ladder: Ladder, rung: Rung) -> Scenario:
        """A rung with its batch and its duration."""
        return Scenario.of(rung.model, rung.train(self.task(ladder).train))

    def prescription(self, ladder: Ladder, rung: Rung) -> Prescription:
        """What the rule prescribes for a rung, carried over from the ladder's reference."""
        return self.rule.prescribe(self.scenario(ladder, ladder.reference), self.scenario(ladder, rung))

    def arm(self, ladder: Ladder, rung: Rung, prescription: Prescription | None = None, *, knob: Knob = "lr") -> Arm:
        """The arm of one rung under the rule's prescription, or under another one (a mutant of it).

        The values of groups that the task tuned one by one are factors on top, except that of ``knob`` itself.
        """
        task = self.task(ladder)
        base = task.base_for(knob)
        prescription = prescription or self.prescription(ladder, rung)
        for tuned, value in task.tuned.items():
            if tuned != knob:
                prescription = prescription.times(knob_factors(tuned, value, base))
        return Arm(
            model=rung.model,
            prescription=prescription,
            base=base,
            train=rung.train(task.train),
            corpus=self.corpus,
            first_seed=self.first_seed,
            knob=knob,
            load_scaling=rung.load_scaling,
            device=self.tier.device,
            precision=self.tier.precision,
        )

    def name(self, *parts: str, rule: str | None = None) -> str:
        """The name of a question and of its file: its own parts, then what differs from the default."""
        routing = [self.routing] if self.routing != DEFAULT_ROUTER else []
        return "-".join([*parts, self.corpus_name, rule or self.rule.name, *routing])

    def question(
        self,
        kind: str,
        name: str,
        ladder: Ladder,
        tolerance: float,
        expected: Verdict | None,
        *,
        axis: str | None = None,
        rule: str | None = None,
        looks: Looks = (),
    ) -> Comparison:
        """A question of this study, without sides. ``rule`` names a mutant of the study's rule; ``axis`` is "control"
        for a control.

        ``expected`` is None where nothing is expected. Looks of an earlier run that differ from ``looks`` are kept.
        A kind of question sets further fields with ``replace``.
        """
        return Comparison(
            kind=kind,
            name=name,
            axis=axis or ladder.axis,
            ladder=ladder.name,
            corpus=self.corpus_name,
            rule=rule or self.rule.name,
            router=self.routing,
            tier=self.tier.name,
            tolerance=tolerance,
            expected=expected.value if expected else "",
            looks=looks,
            earlier_looks=self.earlier_looks(name, looks),
            sides=(),
            command=self.command,
        )


def side_of(rung: AxisPoint, arm: AnyArm, cells: Sequence[str]) -> Side:
    """What a report needs to know of one arm."""
    return Side(label=rung.label, size=rung.size, model=arm.described, cells=tuple(cells), first_seed=arm.first_seed)
