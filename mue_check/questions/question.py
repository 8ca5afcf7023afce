"""The protocol of a kind of question: how it judges the records, and what it adds to a report.

A kind of question is one file of this package (or of a package above it), listed in ``mue_check.catalog``. It has
* a function ``ask_...(study, ...)`` that records the question, measures the cells it needs, saves the answer as a
  ``Comparison`` and returns its finding,
* a ``Finding``, the result of judging one comparison,
* a ``JudgedKind``, whose ``judge`` makes that finding from the store. Suites and ``mue_check report`` both call it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, TypeVar

from mue_check.errors import MueCheckError, StoreError
from mue_check.judge.verdict import Verdict, meets
from mue_check.questions.case import Case, Options, Scope
from mue_check.records import Environment, Store
from mue_check.report.section import Section
from mue_check.study.arm import AnyArm
from mue_check.study.asked import Asked, Unanswered, unanswered
from mue_check.study.comparison import Comparison, Side
from mue_check.study.costs import Costs
from mue_check.study.evidence import require_evidence
from mue_check.study.folder import AxisPoint, Folder


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one question: the ``measured`` numbers as text, and a verdict, None if nothing is judged.

    Subclasses add the judge's own result and what their figures need.
    """

    comparison: Comparison
    verdict: Verdict | None
    measured: str = ""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts that a report counts: one, unless the question judges several laws."""
        return () if self.verdict is None else (self.verdict,)

    @property
    def side(self) -> Side:
        """The target: the last side of the comparison."""
        return self.comparison.sides[-1]


F = TypeVar("F", bound=Finding)
F_co = TypeVar("F_co", bound=Finding, covariant=True)
Expect = Callable[[Finding], None]
"""The fixture of the suites that checks a finding against the verdict that its question expects."""
CaseMaker = Callable[[Options, Scope], Sequence[Case]]


@dataclass(frozen=True)
class Findings:
    """Findings of several kinds."""

    found: tuple[Finding, ...] = ()

    def of(self, kind: type[F]) -> tuple[F, ...]:
        """Those of one type, in the order of their comparisons."""
        return tuple(finding for finding in self.found if isinstance(finding, kind))


class QuestionKind:
    """A kind of question, as a report and the suites see it. By default it finds and reports nothing."""

    label: str
    """Its name in the counts of a report."""
    cases: ClassVar[Mapping[str, CaseMaker]] = {}
    """By the name of a pytest fixture, the cases of the suites' tests, for fixtures that this kind adds."""
    terms: ClassVar[Mapping[str, str]] = {}
    """Terms of its tables, with their definitions."""
    axes: tuple[str, ...] = ()
    """Axes with a separate section in its report. Their drifts are not in the main table of drifts."""

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[Finding, ...]:
        """Judge a study. ``known`` are the findings of the kinds before it in the catalog."""
        return ()

    def sections(self, summary: "Summary") -> Iterator[Section]:
        """Its sections of the report, in their order."""
        yield from ()

    def headlines(self, summary: "Summary") -> Sequence[str]:
        """What it prints on a terminal."""
        return ()

    def files(self, summary: "Summary") -> Mapping[str, Mapping[str, object]]:
        """JSON files next to the report, by name."""
        return {}


class JudgedKind(QuestionKind, ABC, Generic[F_co]):
    """A kind that judges one comparison at a time."""

    kind: str
    """``Comparison.kind`` of its comparisons."""
    measurement: str
    """What the cells of its comparisons measure."""

    @abstractmethod
    def judge(self, store: Store, comparison: Comparison) -> F_co:
        """Judge one comparison from the records alone: no training, no torch."""

    def answer(
        self,
        study: Folder,
        question: Comparison,
        rungs: Sequence[AxisPoint],
        arms: Sequence[AnyArm],
        steps: tuple[int, ...] = (),
        *,
        replicates: int = 0,
    ) -> F_co:
        """Measure the arms at the looks of the question until one is not INCONCLUSIVE, and save the answer.

        A question that is judged once has no looks; ``replicates`` then says how many replicates to measure.
        """
        looks = (replicates,) if replicates else question.looks
        with study.asking(question):
            for sides in study.rounds(self.measurement, rungs, arms, looks, steps):
                found = self.judge(study.store, replace(question, sides=sides))
                if found.verdict is not Verdict.INCONCLUSIVE:
                    break
            study.save(found.comparison)
        return found

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[F_co, ...]:
        """Judge its comparisons. StoreError, one line, names the one whose cells are missing or do not fit."""
        return tuple(self._judge(store, c) for c in comparisons if c.kind == self.kind)

    def _judge(self, store: Store, comparison: Comparison) -> F_co:
        try:
            require_evidence(store, comparison, self.measurement)
            return self.judge(store, comparison)
        except (MueCheckError, KeyError, ValueError, IndexError) as error:
            what = str(error) if isinstance(error, MueCheckError) else f"its cells do not fit the question ({error!r})"
            line = " ".join(what.split())
            raise StoreError(f"cannot judge {comparison.name!r}: {line}; run the study again") from None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A study judged from its records: what was asked, what every kind of question found, and what the cells cost."""

    name: str
    axes: tuple[str, ...]
    """All axes in the order of the report."""
    asked: tuple[Asked, ...]
    comparisons: tuple[Comparison, ...]
    """The answers that are stored."""
    answers: tuple[tuple[QuestionKind, tuple[Finding, ...]], ...]
    costs: Costs
    environments: Mapping[Environment | None, int]
    """Where the cells were measured, and how many; None where that was not stored."""
    findings: Findings = field(repr=False)
    unfinished: tuple[str, ...]
    """The runs that did not finish."""

    def of(self, kind: type[F]) -> tuple[F, ...]:
        """The findings of one type."""
        return self.findings.of(kind)

    @property
    def own_axes(self) -> frozenset[str]:
        """Axes that a kind of question reports in a separate section."""
        return frozenset(axis for kind, _ in self.answers for axis in kind.axes)

    @property
    def verdicts(self) -> Mapping[str, tuple[tuple[Verdict, str], ...]]:
        """(verdict, expected) of every question with an expected verdict, by label; controls under "control"."""
        counted: dict[str, list[tuple[Verdict, str]]] = {kind.label: [] for kind, _ in self.answers}
        controls: list[tuple[Verdict, str]] = []
        for kind, found in self.answers:
            for c, verdict in ((each.comparison, verdict) for each in found for verdict in each.verdicts):
                if c.is_control:
                    controls.append((verdict, c.expected))
                elif c.expected:
                    counted[kind.label].append((verdict, c.expected))
        return {label: tuple(pairs) for label, pairs in (*counted.items(), ("control", controls)) if pairs}

    @property
    def questions(self) -> Sequence[Comparison]:
        """Every question, answered or not, in the order of the report."""
        answered = {c.name for c in self.comparisons}
        return (*self.comparisons, *(a.question for a in self.asked if a.question.name not in answered))

    @property
    def unanswered(self) -> tuple[Unanswered, ...]:
        """The questions that were asked and have no answer."""
        return tuple(unanswered(self.asked, self.comparisons))

    @property
    def unlisted(self) -> tuple[Comparison, ...]:
        """The answers to questions that are not in the list of questions, as in studies of version 0.3."""
        names = {each.question.name for each in self.asked}
        return tuple(c for c in self.comparisons if c.name not in names)

    @property
    def last_run(self) -> str:
        """The last run that asked anything; empty if that is not known."""
        return max((each.run for each in self.asked), default="")

    def of_run(self, run: str) -> "Summary":
        """The part of the study that this run asked: the questions that no later run has asked again."""
        asked = tuple(each for each in self.asked if each.run == run)
        names = {each.question.name for each in asked}
        answers = tuple((kind, tuple(f for f in found if f.comparison.name in names)) for kind, found in self.answers)
        return replace(
            self,
            asked=asked,
            comparisons=tuple(c for c in self.comparisons if c.name in names),
            answers=answers,
            findings=Findings(tuple(finding for _, found in answers for finding in found)),
            unfinished=(),
        )

    @property
    def verdict(self) -> Verdict:
        """FAIL when any question is answered against its expected verdict.

        Else INCONCLUSIVE when any is open, unanswered or unlisted, when a run did not finish, and when nothing is
        judged at all.
        """
        pairs = [pair for pairs in self.verdicts.values() for pair in pairs]
        if any(verdict is not Verdict.INCONCLUSIVE and not meets(verdict, expected) for verdict, expected in pairs):
            return Verdict.FAIL
        judged = {finding.comparison.name for _, found in self.answers for finding in found if finding.verdicts}
        is_open = any(verdict is Verdict.INCONCLUSIVE for verdict, _ in pairs) or any(
            c.expected and c.name not in judged for c in self.comparisons
        )
        is_open = is_open or bool(self.unanswered or self.unlisted or self.unfinished) or not pairs
        return Verdict.INCONCLUSIVE if is_open else Verdict.PASS

    @property
    def as_expected(self) -> bool:
        """Whether every question has its expected verdict; one that is open has not."""
        return self.verdict is Verdict.PASS
