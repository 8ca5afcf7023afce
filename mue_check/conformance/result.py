"""Results: one per check, and the two verdicts that they add up to."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mue_check.conformance.causes import CAUSES
from mue_check.judge.verdict import Verdict

Severity = Literal["must", "should"]
Question = Literal["claim", "fit"]
"""Two verdicts apart: is it what it claims to be; do tuned values carry over to it under Complete-muE."""
QUESTIONS: tuple[Question, ...] = ("claim", "fit")
Outcome = Literal["passed", "failed", "error", "skipped", "unknown", "xfailed", "xpassed"]
"""``error``: the candidate raised, hung or died. ``xfailed``, ``xpassed``: its user expects the failure."""
NO_ANSWER = "no answer within"
BROKEN = ("failed", "error", "xpassed")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one check found over all shapes and seeds; of several failures the first.

    ``measured`` holds value and tolerance in words, ``worst`` the token, expert or parameter, ``where`` the shape and
    seed, ``broken_at`` how many of ``cases`` fail, ``cause`` likely mistakes, ``again`` the command that asks again.
    """

    check: str
    candidate: str
    question: Question
    severity: Severity
    outcome: Outcome
    law: str
    source: str
    since: str
    measured: str
    worst: str = ""
    where: str = ""
    cases: int = 0
    broken_at: int = 0
    cause: tuple[str, ...] = ()
    again: str = ""
    seconds: float = 0.0

    @property
    def broken(self) -> bool:
        """Whether it counts against the candidate."""
        return self.outcome in BROKEN

    @property
    def warning(self) -> bool:
        """Whether it is broken, and only a should."""
        return self.broken and self.severity == "should" and self.outcome != "xpassed"

    @property
    def hung(self) -> bool:
        """Whether the check ran out of time."""
        return self.outcome == "error" and self.measured.startswith(NO_ANSWER)

    @property
    def page(self) -> str:
        """Where the law is explained."""
        return f"docs/checks/{self.check}.md"

    def expected_to_fail(self, reason: str) -> "Result":
        """The same in the eyes of a user who expects the failure; a pass is then a failure of its own."""
        if self.outcome in ("failed", "error", "unknown"):
            return replace(self, outcome="xfailed", measured=f"{self.measured} [expected: {reason}]")
        if self.outcome in ("passed", "skipped"):
            return replace(self, outcome="xpassed", measured=f"{self.measured}; its failure was expected: {reason}")
        return self

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "cause": list(self.cause), "page": self.page}

    def explain(self) -> str:
        """The whole story of a failure, some lines long."""
        lines = [
            f"{self.check}: {'warning' if self.warning else self.outcome}",
            f"  law:      {self.law}",
            f"  measured: {self.measured}",
        ]
        if self.worst:
            lines.append(f"  worst:    {self.worst}")
        if self.where:
            lines.append(f"  at:       {self.where} ({self.broken_at} of {self.cases} cases)")
        lines += [f"  {'likely:  ' if i == 0 else '         '} {cause}" for i, cause in enumerate(self.cause)]
        lines.append(f"  source:   {self.source}; {self.page}")
        if self.again:
            lines.append(f"  again:    {self.again}")
        return "\n".join(lines)


def cause_words(rows: Iterable[int]) -> tuple[str, ...]:
    """The mistakes of these rows, with where they were met."""
    return tuple(f"{CAUSES[row].what} ({CAUSES[row].seen}; row {row})" for row in rows)


def verdict_of(results: Iterable[Result], question: Question) -> Verdict:
    """FAIL with any broken must, INCONCLUSIVE with any that could not be found out, else PASS."""
    asked = [r for r in results if r.question == question and (r.severity == "must" or r.outcome == "xpassed")]
    if any(r.broken for r in asked):
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE if any(r.outcome == "unknown" for r in asked) else Verdict.PASS
