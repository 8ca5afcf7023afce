"""Intervals against the textbook."""

import math

import pytest
from scipy import stats

from mue_check.judge.interval import Interval, jackknife_interval, t_interval, t_quantile

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 7: 2.365, math.inf: 1.960}


@pytest.mark.parametrize(("df", "quantile"), TABLE.items())
def test_quantiles(df: float, quantile: float) -> None:
    assert t_quantile(df) == pytest.approx(quantile, abs=5e-4)


def test_a_t_interval() -> None:
    found = t_interval([1.0, 2.0, 4.0, 9.0])
    low, high = stats.t.interval(0.95, 3, loc=4.0, scale=stats.sem([1.0, 2.0, 4.0, 9.0]))
    assert (found.mean, found.n) == (4.0, 4)
    assert [found.low, found.high] == pytest.approx([low, high])
    assert found.standard_error == pytest.approx(stats.sem([1.0, 2.0, 4.0, 9.0]))
    assert found.half_width == pytest.approx((high - low) / 2)
    assert t_interval([1.0, 3.0]).high == pytest.approx(2 + 12.706, abs=1e-3)


@pytest.mark.parametrize("values", [[], [3.0]])
def test_fewer_than_two_values_bound_nothing(values: list[float]) -> None:
    for found in (t_interval(values), jackknife_interval(3.0, values)):
        assert (found.low, found.high, found.n) == (-math.inf, math.inf, len(values))
        assert found.half_width == found.standard_error == math.inf
    assert math.isnan(t_interval([]).mean)
    assert t_interval([3.0]).mean == jackknife_interval(3.0, []).mean == 3.0


def test_the_jackknife_of_a_mean_is_its_t_interval() -> None:
    for values in ([1.0, 2.0, 4.0, 9.0], [1.0, 3.0]):
        without = [(sum(values) - value) / (len(values) - 1) for value in values]
        ours, theirs = jackknife_interval(sum(values) / len(values), without), t_interval(values)
        assert [ours.mean, ours.low, ours.high, ours.n] == pytest.approx(
            [theirs.mean, theirs.low, theirs.high, theirs.n]
        )


def test_an_interval_as_text() -> None:
    assert str(Interval(1.0, -0.5, 2.5, 4)) == "+1.00 [-0.50, +2.50]"
    assert Interval(1.0, -0.5, 2.5, 4).text(3) == "+1.000 [-0.500, +2.500]"
