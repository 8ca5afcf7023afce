"""How an interval becomes a verdict, at and around each bound."""

import math

import pytest

from mue_check.judge.interval import Interval
from mue_check.judge.verdict import Verdict, join, judge_interval, judge_upper, meets

PASS, RESIDUAL, FAIL, OPEN = Verdict.PASS, Verdict.RESIDUAL, Verdict.FAIL, Verdict.INCONCLUSIVE


def between(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 4)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.5, 0.5, PASS),
        (-0.51, 0.5, OPEN),
        (-0.5, 0.51, OPEN),
        (0.5, 0.6, OPEN),
        (0.51, 0.6, FAIL),
        (-0.6, -0.5, OPEN),
        (-0.6, -0.51, FAIL),
        (-9.0, 9.0, OPEN),
        (-math.inf, math.inf, OPEN),
        (math.nan, math.nan, OPEN),
    ],
)
def test_against_a_tolerance(low: float, high: float, verdict: Verdict) -> None:
    assert judge_interval(between(low, high), 0.5) is verdict
    assert judge_interval(between(low + 2, high + 2), 0.5, center=2.0) is verdict or math.isnan(low)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.5, 0.5, PASS),
        (0.75, 1.0, RESIDUAL),
        (-0.25, 1.5, RESIDUAL),
        (-0.5, 1.5, RESIDUAL),
        (-0.75, 0.25, OPEN),
        (0.75, 1.75, OPEN),
        (1.5, 1.75, OPEN),
        (1.75, 2.0, FAIL),
        (-0.75, -0.5, OPEN),
        (-1.0, -0.75, FAIL),
        (-9.0, 9.0, OPEN),
    ],
)
def test_a_residual_is_neither_a_pass_nor_a_wider_tolerance(low: float, high: float, verdict: Verdict) -> None:
    assert judge_interval(between(low, high), 0.5, residual=1.0) is verdict
    assert judge_interval(between(-high, -low), 0.5, residual=-1.0) is verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-9.0, 0.5, PASS), (0.5, 0.5, PASS), (0.5, 0.6, OPEN), (0.51, 0.6, FAIL), (math.nan, math.nan, OPEN)],
)
def test_against_an_upper_limit(low: float, high: float, verdict: Verdict) -> None:
    assert judge_upper(between(low, high), 0.5) is verdict


def test_verdicts_join_to_the_worst() -> None:
    order = (PASS, RESIDUAL, OPEN, FAIL)
    for at, better in enumerate(order):
        for worse in order[at:]:
            assert join([better, worse]) is join([worse, better]) is worse
    assert join([]) is OPEN


def test_a_pass_meets_a_residual_and_nothing_else_meets_another() -> None:
    for verdict in Verdict:
        for expected in Verdict:
            assert meets(verdict, expected.value) == (verdict is expected or (verdict, expected) == (PASS, RESIDUAL))
        assert not meets(verdict, "")
