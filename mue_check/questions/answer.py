"""An answer: a question, what was measured, and the verdict, as suites and reports need them."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T_co]):
    """``result`` is the judge's own object, ``measured`` its text; ``verdict`` None for a finding."""

    comparison: Comparison
    result: T_co
    verdict: Verdict | None
    measured: str
