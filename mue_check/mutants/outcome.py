"""What checks said of a mutant: the rows of the mutation table. No torch here: reports read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mue_check.judge.verdict import Verdict
from mue_check.mutants.mutant import Check

AnyCheck = Literal["scales", "audit", "drift"]
CHECKS: tuple[AnyCheck, ...] = ("scales", "audit", "drift")
"""``drift`` is the learning-rate sweep: slow, and blind to much that the others see at once."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one check said of one mutant. ``says`` is its first finding."""

    check: AnyCheck
    verdict: Verdict
    says: str

    @property
    def caught(self) -> bool:
        """FAIL is the only verdict that catches."""
        return self.verdict is Verdict.FAIL


@dataclass(frozen=True, kw_only=True)
class MutantResult:
    """One row of the table: all checks that were put to a mutant.

    ``named``: the law that the mutant names is among those that failed (True where it names none).
    """

    name: str
    summary: str
    ladder: str
    caught_by: Check
    seen: str
    outcomes: tuple[Outcome, ...]
    named: bool

    @property
    def killed(self) -> bool:
        """The check that must see the mutant sees it, by the law that names it."""
        return self.named and any(o.caught for o in self.outcomes if o.check == self.caught_by)


def score(results: Sequence[MutantResult]) -> float:
    """Share of mutants that were killed by the check that names them."""
    return sum(result.killed for result in results) / len(results)
