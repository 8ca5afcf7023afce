"""Intervals against the textbook, and one level for all looks: together they cover, whatever rule stops."""

import math

import numpy as np
import pytest
from scipy import stats

from mue_check.errors import JudgeError
from mue_check.judge.interval import (
    PLAIN,
    Interval,
    Looks,
    jackknife_interval,
    look_level,
    looks_text,
    t_interval,
    t_quantile,
)

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


CASES: list[Looks] = [tuple(range(4, 9)), tuple(range(4, 13)), tuple(range(4, 65)), (4, 12), (12, 24, 48, 96)]


@pytest.mark.parametrize("looks", CASES, ids=looks_text)
def test_all_looks_together_cover(looks: Looks) -> None:
    values = np.random.default_rng(1).normal(size=(20_000, looks[-1]))
    inside = np.ones(len(values), bool)
    for n in looks:
        seen = values[:, :n]
        t = seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / math.sqrt(n))
        inside &= np.abs(t) <= t_quantile(n - 1, look_level(looks))
    assert 0.945 <= inside.mean() <= 0.965


def test_a_fixed_number_of_seeds_has_the_plain_level() -> None:
    assert look_level(()) == look_level((8,)) == PLAIN
    assert look_level(tuple(range(4, 9))) == 0.0178
    assert look_level(tuple(range(4, 13))) == 0.0125
    assert look_level((4, 12)) == PLAIN / 2


@pytest.mark.parametrize("looks", [(5, 4), (4, 4), (0, 5), (-1, 3)])
def test_looks_that_do_not_ascend_are_refused(looks: Looks) -> None:
    with pytest.raises(JudgeError, match="looks at"):
        look_level(looks)


def test_the_standard_error_does_not_depend_on_the_looks() -> None:
    values = [0.1, 0.3, 0.2, 0.6]
    plain, one_of_many = t_interval(values), t_interval(values, look_level(tuple(range(4, 13))))
    assert one_of_many.half_width > 1.6 * plain.half_width
    assert one_of_many.standard_error == pytest.approx(plain.standard_error)
    assert one_of_many.plain_half_width == pytest.approx(plain.half_width)


def test_the_least_spread() -> None:
    assert t_interval([0.2] * 4, least_sd=0.1).standard_error == pytest.approx(0.05)
    assert t_interval([0.1, 0.9], least_sd=0.1) == t_interval([0.1, 0.9])


@pytest.mark.parametrize(("looks", "text"), [((4, 5, 6), "4..6"), ((4, 12), "4, 12"), ((4, 5), "4, 5"), ((6,), "6")])
def test_looks_as_text(looks: Looks, text: str) -> None:
    assert looks_text(looks) == text
