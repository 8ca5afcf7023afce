"""The result of one check over all its cases, failures that users expect, and the two verdicts."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mue_check.errors import ClaimError
from mue_check.input_files import read_toml
from mue_check.judge.verdict import Verdict

Severity = Literal["must", "should"]
Question = Literal["claim", "fit"]
"""Two verdicts: does the candidate match its claim, and do tuned values transfer to it under Complete-muE?"""
QUESTIONS: tuple[Question, ...] = ("claim", "fit")
ResultStatus = Literal["passed", "failed", "error", "skipped", "unknown", "xfailed", "xpassed"]
"""``error``: the candidate raised, hung or died. ``xfailed``, ``xpassed``: the user expects the failure."""
TIMED_OUT = "no answer within"
_BROKEN = ("failed", "error", "xpassed")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check found over all shapes and seeds; if several cases fail, the first failure.

    ``measured`` has value and tolerance as text, ``worst`` the token, expert or parameter, ``where`` the shape and
    seed, ``broken_at`` how many of ``cases`` fail, ``cause`` likely bugs, ``again`` the command that reruns the check.
    """

    check: str
    candidate: str
    question: Question
    severity: Severity
    outcome: ResultStatus
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
        return self.outcome in _BROKEN

    @property
    def warning(self) -> bool:
        """Whether it is a broken should."""
        return self.broken and self.severity == "should" and self.outcome != "xpassed"

    @property
    def against(self) -> bool:
        """Whether it keeps a verdict from PASS: a must that is broken or unknown, or an unexpected pass."""
        decides = self.severity == "must" or self.outcome == "xpassed"
        return decides and (self.broken or self.outcome == "unknown")

    @property
    def hung(self) -> bool:
        """Whether the check ran out of time."""
        return self.outcome == "error" and self.measured.startswith(TIMED_OUT)

    @property
    def page(self) -> str:
        """The command that shows the page about the law."""
        return f"mue_check explain {self.check}"

    def expected_to_fail(self, reason: str) -> "CheckResult":
        """The result for a user who expects a failure: a pass then counts as a failure."""
        if self.outcome in ("failed", "error", "unknown"):
            return replace(self, outcome="xfailed", measured=f"{self.measured} [expected: {reason}]")
        if self.outcome in ("passed", "skipped"):
            return replace(self, outcome="xpassed", measured=f"{self.measured}; its failure was expected: {reason}")
        return self

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "cause": list(self.cause), "page": self.page}

    def explain(self) -> str:
        """A failure in full, over several lines."""
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
            lines.append(f"  rerun:    {self.again}")
        return "\n".join(lines)


def verdict_of(results: Iterable[CheckResult], question: Question) -> Verdict:
    """FAIL with any broken must, INCONCLUSIVE with any unknown one or if no check passed, else PASS."""
    about = [r for r in results if r.question == question]
    against = [r for r in about if r.against]
    if any(r.broken for r in against):
        return Verdict.FAIL
    return Verdict.PASS if not against and any(r.outcome == "passed" for r in about) else Verdict.INCONCLUSIVE


def read_expected(path: Path) -> dict[str, str]:
    """Expected failures from a TOML file, check id -> reason; ClaimError if the file is not that."""
    values = read_toml(path, f"expected failures {path}", ClaimError)
    for key, reason in values.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ClaimError(f'expected failures {path}: {key} needs a reason: {key} = "why"')
    return values


def with_expected(results: Iterable[CheckResult], expected: Mapping[str, str]) -> tuple[list[CheckResult], list[str]]:
    """The results with expected failures (check id -> reason) applied, and the ids that match no result."""
    out = [r.expected_to_fail(expected[r.check]) if r.check in expected else r for r in results]
    return out, sorted(set(expected) - {r.check for r in out})
