"""The verdict: one function. INCONCLUSIVE is no PASS, and it is no FAIL either; RESIDUAL is for approximate laws."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mue_check.judge.interval import Interval


class Verdict(StrEnum):
    """What an interval says of a law with a tolerance. RESIDUAL: it drifts, as far as its approximate law states."""

    PASS = "PASS"
    RESIDUAL = "RESIDUAL"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


def join(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of them: FAIL, INCONCLUSIVE, RESIDUAL, PASS."""
    found = set(verdicts)
    worst = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.RESIDUAL)
    return next((v for v in worst if v in found), Verdict.PASS)


def meets(verdict: Verdict, expected: str) -> bool:
    """Whether a verdict is what was expected: the same, or PASS where a residual was allowed."""
    return verdict == expected or (verdict is Verdict.PASS and expected == Verdict.RESIDUAL)


def judge_interval(interval: Interval, tolerance: float, *, center: float = 0.0, residual: float = 0.0) -> Verdict:
    """PASS when the whole interval lies within ``center`` +- ``tolerance``, FAIL when none of it does, else neither.

    An approximate law states a ``residual``, by which its centre may move: RESIDUAL when the interval lies
    within the tolerance of the stretch from ``center`` to ``center + residual``, and FAIL only outside that.
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
