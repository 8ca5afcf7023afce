"""The verdict: one function, three values. INCONCLUSIVE is no PASS, and it is no FAIL either."""

from collections.abc import Iterable
from enum import StrEnum

from mue_check.judge.interval import Interval


class Verdict(StrEnum):
    """What an interval says of a law with a tolerance."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


def join(verdicts: Iterable[Verdict]) -> Verdict:
    """FAIL when any is, else INCONCLUSIVE when any is, else PASS."""
    found = set(verdicts)
    return next((v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE) if v in found), Verdict.PASS)


def judge_interval(interval: Interval, tolerance: float, *, center: float = 0.0) -> Verdict:
    """PASS when the whole interval lies within ``center`` +- ``tolerance``, FAIL when none of it does, else neither."""
    low, high = center - tolerance, center + tolerance
    if low <= interval.low and interval.high <= high:
        return Verdict.PASS
    if interval.high < low or interval.low > high:
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE
