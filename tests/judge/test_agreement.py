"""The line of measured on predicted drifts: what it recovers, and how often its intervals contain the truth."""

import math

import numpy as np
import pytest

from mue_check.judge.agreement import Point, fit_agreement, mean_measured

PREDICTED = (0.0, 0.0, 0.67, 1.33, -1.0)
SLOPE, OFFSET = 1.0, -0.1


def point(predicted: float, measured: float, error: float = 0.1, reference: str = "r", group: str = "g") -> Point:
    return Point(predicted=predicted, measured=measured, standard_error=error, reference=reference, group=group)


def simulated(random: np.random.Generator, *, ladders: int, between: float, one_reference: bool) -> list[Point]:
    """Ladders of five points each, whose references have an error of 0.12 octave."""
    points = []
    reference = random.normal(0, 0.12)
    for ladder in range(ladders):
        reference = reference if one_reference else random.normal(0, 0.12)
        own = random.normal(0, between)
        for predicted in PREDICTED:
            error = random.uniform(0.08, 0.25)
            measured = OFFSET + SLOPE * predicted + own + random.normal(0, error) - reference
            name = "shared" if one_reference else f"{ladder}"
            points.append(point(predicted, measured, math.hypot(error, 0.12), name, f"{ladder}"))
    return points


def test_an_exact_line_is_recovered_without_spread() -> None:
    fit = fit_agreement([point(x, 0.2 + 0.5 * x, group=f"{x}", reference=f"{x}") for x in (-1.0, 0.0, 1.0, 2.0)])
    assert fit is not None
    assert (fit.slope.mean, fit.intercept.mean) == pytest.approx((0.5, 0.2))
    assert fit.spread == 0
    assert fit.slope.n == 4
    # four points, each with an error of 0.1: the usual standard error of a slope, times t for two degrees of freedom
    assert fit.slope.half_width == pytest.approx(4.303 * 0.1 / math.sqrt(5), rel=1e-3)


def test_a_precise_point_counts_more() -> None:
    mean = mean_measured([point(0, 0.0, 0.01, "a", "a"), point(0, 0.4, 0.5, "b", "b"), point(0, 0.0, 0.01, "c", "c")])
    assert mean.mean == pytest.approx(0.0, abs=0.01)


def test_points_that_disagree_widen_the_interval() -> None:
    near, far = (
        mean_measured([point(0, y, 0.05, name, name) for y, name in zip((-by, by, -by, by), "abcd", strict=True)])
        for by in (0.01, 0.5)
    )
    assert near.half_width < 0.1
    assert far.half_width > 0.5


def test_a_shared_reference_does_not_average_out() -> None:
    apart = mean_measured([point(0, 0.0, 0.1, f"{i}", f"{i}") for i in range(20)])
    shared = mean_measured([point(0, 0.0, 0.1, "r", f"{i}") for i in range(20)])
    assert shared.half_width > 2.5 * apart.half_width
    # half of the variance is the reference's
    assert shared.standard_error > 0.1 / math.sqrt(2)


def test_too_few_points_have_no_line() -> None:
    assert fit_agreement([point(0, 0), point(1, 1)]) is None
    assert fit_agreement([point(1, 0), point(1, 1), point(1, 2)]) is None
    assert mean_measured([point(0, 0.3)]).half_width == math.inf
    assert math.isnan(mean_measured([]).mean)


def test_one_ladder_alone_has_an_interval_from_its_points() -> None:
    fit = fit_agreement([point(x, x, group="only") for x in (0.0, 1.0, 2.0)])
    assert fit is not None
    assert math.isfinite(fit.slope.half_width)


@pytest.mark.parametrize("one_reference", [True, False])
@pytest.mark.parametrize(("ladders", "between"), [(5, 0.0), (10, 0.3)])
def test_intervals_contain_the_truth(ladders: int, between: float, one_reference: bool) -> None:
    random = np.random.default_rng(7)
    slopes, offsets, means = 0, 0, 0
    for _ in range(100):
        points = simulated(random, ladders=ladders, between=between, one_reference=one_reference)
        fit = fit_agreement(points)
        assert fit is not None
        slopes += fit.slope.low <= SLOPE <= fit.slope.high
        offsets += fit.intercept.low <= OFFSET <= fit.intercept.high
        mean = mean_measured([p for p in points if p.predicted == 0])
        means += mean.low <= OFFSET <= mean.high
    assert min(slopes, offsets, means) >= 89  # 95 expected, minus three standard deviations
