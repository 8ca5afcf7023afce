"""The trend of drifts of known slope."""

import math

import numpy as np
import pytest

from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.optimum import Curve
from mue_check.judge.trend import judge_trend, slopes_by_seed

X = np.arange(-11.0, -3.0, 0.5)


def curve(optima: list[float], first: int = 0) -> Curve:
    losses = np.array([3.0 + 0.001 * i + 0.02 * (X - at) ** 2 for i, at in enumerate(optima)])
    seeds = tuple(range(first, first + len(optima)))
    return Curve(values=2.0**X, seeds=seeds, losses=losses, initial=np.full(len(optima), 9.0))


def drift(by_seed: list[float], first: int = 0) -> Drift:
    return judge_drift(curve([-7.0] * len(by_seed), first), curve([-7.0 + d for d in by_seed], first), 0.5)


SLOPES = [0.05, 0.07, 0.09, 0.11]


def on_the_line(size: float) -> tuple[float, Drift]:
    return size, drift([slope * math.log2(size / 8) for slope in SLOPES])


def test_slopes_are_recovered_seed_by_seed_and_extrapolated() -> None:
    trend = judge_trend(8, [on_the_line(32), on_the_line(256)], 1024)
    assert trend is not None
    assert trend.slope.mean == pytest.approx(np.mean(SLOPES))
    half = 3.182446 * np.std(SLOPES, ddof=1) / 2
    assert trend.slope.half_width == pytest.approx(half)
    assert trend.at_size.mean == pytest.approx(7 * np.mean(SLOPES))
    assert trend.at_size.half_width == pytest.approx(7 * half)
    assert trend.size == 1024


def test_the_line_goes_through_the_reference() -> None:
    """A drift that comes at once and then stays is no slope through its own mean."""
    trend = judge_trend(8, [(16, drift([0.3] * 4)), (32, drift([0.3] * 4))], 1024)
    assert trend is not None
    assert trend.slope.mean == pytest.approx((1 * 0.3 + 2 * 0.3) / 5)


def test_no_trend_below_two_resolved_targets_or_two_common_seeds() -> None:
    lost = judge_drift(curve([-7.0] * 3), curve([-6.0] * 3), 0.5)
    assert lost.reason is not None
    assert judge_trend(8, [on_the_line(32)], 1024) is None
    assert judge_trend(8, [on_the_line(32), (256, lost)], 1024) is None
    assert judge_trend(8, [], 1024) is None
    for first, seeds in ((2, 2), (3, None)):  # common seeds of 0 to 3 with these
        trend = judge_trend(8, [on_the_line(32), (256, drift([5 * slope for slope in SLOPES], first))], 1024)
        assert (trend and trend.slope.n) == seeds


def test_seeds_that_only_one_target_has_are_left_out() -> None:
    more = judge_drift(curve([-7.0] * 5), curve([-7.0 + 5 * slope for slope in [*SLOPES, 0.4]]), 0.5)
    assert len(more.by_seed) == 5
    found = [judge_trend(8, [on_the_line(32), (256, far)], 1024) for far in (on_the_line(256)[1], more)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[1].slope.n == 4
    assert found[1].slope.mean == pytest.approx(found[0].slope.mean)


def test_a_single_drift_has_a_slope_and_one_of_the_same_size_has_none() -> None:
    assert slopes_by_seed(8, [on_the_line(32)]) == pytest.approx(SLOPES)
    assert slopes_by_seed(32, [on_the_line(32)]) == []
