"""Verdicts: how an interval is judged against a tolerance. INCONCLUSIVE is neither PASS nor FAIL."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mue_check.judge.interval import Interval


class Verdict(StrEnum):
    """The result of comparing an interval with a law. RESIDUAL: a drift no larger than an approximate law states."""

    PASS = "PASS"
    RESIDUAL = "RESIDUAL"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


def join(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict, in the order FAIL, INCONCLUSIVE, RESIDUAL, PASS."""
    found = set(verdicts)
    worst = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.RESIDUAL)
    return next((v for v in worst if v in found), Verdict.PASS)


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
