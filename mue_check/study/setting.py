"""The setting of a study: where its records are, and what all its questions share."""

from dataclasses import dataclass, replace
from pathlib import Path

from mue_check.axes import Ladder, Rung
from mue_check.judge.verdict import Verdict
from mue_check.records import Store
from mue_check.rules import Prescription, Rule
from mue_check.spec import Scenario
from mue_check.study.arm import Arm
from mue_check.study.comparison import Comparison, Kind, Side, save_comparison
from mue_check.tiers import Tier


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study folder at one tier, on one corpus, under one rule. ``tolerance`` is in octaves.

    ``command`` asks the question again.
    """

    root: Path
    tier: Tier
    corpus: str
    rule: Rule
    tolerance: float
    command: str

    @property
    def store(self) -> Store:
        """The records of this study."""
        return Store(self.root)

    @property
    def corpus_name(self) -> str:
        """The corpus without its folder, fit for a file name."""
        return Path(self.corpus).name

    def with_rule(self, rule: Rule) -> "Study":
        """The same study under another rule."""
        return replace(self, rule=rule)

    def prescription(self, ladder: Ladder, rung: Rung) -> Prescription:
        """What the rule prescribes for a rung, carried from the ladder's reference."""
        train = self.tier.task(self.corpus).train
        return self.rule.prescribe(Scenario.of(ladder.reference.model, train), Scenario.of(rung.model, train))

    def arm(self, rung: Rung, prescription: Prescription) -> Arm:
        """The arm of one rung under a prescription (the rule's own, or a mutant of it)."""
        task = self.tier.task(self.corpus)
        return Arm(
            model=rung.model,
            prescription=prescription,
            base=task.base,
            train=task.train,
            corpus=self.corpus,
            device=self.tier.device,
        )

    def save(
        self,
        kind: Kind,
        name: str,
        axis: str,
        tolerance: float,
        sides: tuple[Side, ...],
        expected: Verdict,
        *,
        rule: str | None = None,
    ) -> Comparison:
        """Leave a question beside the records; ``rule`` names a mutant of the study's own."""
        comparison = Comparison(
            kind=kind,
            name=name,
            axis=axis,
            corpus=self.corpus_name,
            rule=rule or self.rule.name,
            tier=self.tier.name,
            tolerance=tolerance,
            expected=expected.value,
            sides=sides,
            command=self.command,
        )
        save_comparison(self.root, comparison)
        return comparison


def side_of(rung: Rung, arm: Arm, cells: list[str]) -> Side:
    """What a report needs to know of one arm."""
    return Side(label=rung.label, size=rung.size, model=str(rung.model), cells=tuple(cells), first_seed=arm.first_seed)
