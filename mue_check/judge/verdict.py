"""Verdicts: how an interval is judged against a tolerance. INCONCLUSIVE is neither PASS nor FAIL."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

from mue_check.errors import JudgeError

if TYPE_CHECKING:
    from mue_check.judge.interval import Interval

LARGEST_TOLERANCE = 2.0
"""Octaves: a factor of 4 in the learning rate."""


class Verdict(StrEnum):
    """The result of comparing an interval with a law. RESIDUAL: a drift no larger than an approximate law states."""

    PASS = "PASS"
    RESIDUAL = "RESIDUAL"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


def require_tolerance(octaves: float) -> float:
    """The tolerance of a drift, if it is one. JudgeError if it is not above 0, or so large that every drift passes."""
    if not 0 < octaves <= LARGEST_TOLERANCE:
        raise JudgeError(
            f"tolerance {octaves:g}: must be above 0 and at most {LARGEST_TOLERANCE:g} octaves, a factor of "
            f"{2**LARGEST_TOLERANCE:g} in the learning rate; a drift that is larger is not harmless"
        )
    return octaves


def join(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict, in the order FAIL, INCONCLUSIVE, RESIDUAL, PASS; INCONCLUSIVE where nothing was judged."""
    found = set(verdicts)
    worst = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.RESIDUAL, Verdict.PASS)
    return next((v for v in worst if v in found), Verdict.INCONCLUSIVE)


def meets(verdict: Verdict, expected: str) -> bool:
    """Whether a verdict is the expected one, or PASS where RESIDUAL was expected."""
    return verdict == expected or (verdict is Verdict.PASS and expected == Verdict.RESIDUAL)


def judge_interval(interval: Interval, tolerance: float, *, center: float = 0.0, residual: float = 0.0) -> Verdict:
    """PASS if the whole interval lies within ``center`` +- ``tolerance``, FAIL if none of it does, else INCONCLUSIVE.

    An approximate law states a ``residual`` by which its center may move. An interval within ``tolerance`` of the range
    from ``center`` to ``center + residual`` is then RESIDUAL, and only one outside that range is FAIL.
    """
    low, high = center - tolerance, center + tolerance
    if low <= interval.low and interval.high <= high:
        return Verdict.PASS
    low, high = low + min(0.0, residual), high + max(0.0, residual)
    if interval.high < low or interval.low > high:
        return Verdict.FAIL
    if residual and low <= interval.low and interval.high <= high:
        return Verdict.RESIDUAL
    return Verdict.INCONCLUSIVE


def judge_upper(interval: Interval, limit: float) -> Verdict:
    """PASS if the whole interval lies at or below the limit, FAIL if all of it lies above."""
    if interval.high <= limit:
        return Verdict.PASS
    return Verdict.FAIL if interval.low > limit else Verdict.INCONCLUSIVE
