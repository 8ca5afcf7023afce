"""Drift against the shift of sigma_0, on points whose line is known."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval, t_interval
from mue_check.sigma0.kappa import KappaPoint, fit_kappa

KAPPA, DRIFT_SD, SEEDS = -0.7, 0.15, 5
"""Octaves per octave; a drift's spread over seeds and their number, as the suites have them."""
Points = list[KappaPoint]


def measured(
    rng: np.random.Generator, *, tau: float = 0.1, intercept: float = 0.0, shift_sd: float = 0.05, ladders: int = 3
) -> Points:
    """Four arms on each ladder, each against the ladder's reference, all measured with the same seeds."""
    points = []
    for ladder in range(ladders):
        reference = rng.normal(0, [[DRIFT_SD], [shift_sd]], (2, SEEDS))
        for arm, shift in enumerate(rng.uniform(-1.5, 0.5, 4)):
            drift = intercept + KAPPA * shift + rng.normal(0, tau)
            errors = rng.normal(0, [[DRIFT_SD], [shift_sd]], (2, SEEDS)) - reference
            drifts, shifts = drift + errors[0], shift + errors[1]
            pair = t_interval(list(shifts)), t_interval(list(drifts))
            points.append(KappaPoint.of(f"{ladder}.{arm}", f"ladder {ladder}", *pair))
    return points


def exact(*pairs: tuple[float, float], ladder: str = "batch") -> Points:
    return [
        KappaPoint(label=str(i), ladder=ladder, shift=x, shift_se=0.0, drift=y, drift_se=0.0)
        for i, (x, y) in enumerate(pairs)
    ]


def test_exact_points_give_the_exact_line() -> None:
    fit = fit_kappa(exact((-1, 0.8), (-0.5, 0.45), (0, 0.1), (1, -0.6)))
    assert fit.kappa.mean == pytest.approx(-0.7, abs=1e-5)
    assert fit.intercept.mean == pytest.approx(0.1, abs=1e-5)
    assert fit.kappa.half_width < 1e-3
    assert fit.tau < 1e-3
    assert fit.ordinary == pytest.approx((0.1, -0.7))
    assert fit.robust == pytest.approx((0.1, -0.7))
    assert fit.shifts == (-1, 1)
    assert fit.predict(2.0).mean == pytest.approx(-1.3, abs=1e-4)


@pytest.mark.parametrize(("tau", "shift_sd", "origin"), [(0.1, 0.3, False), (0.2, 0.05, True)])
def test_kappa_and_predictions_cover(tau: float, shift_sd: float, origin: bool) -> None:
    """Bands of three Monte-Carlo errors of 30 simulations about 0.95, and all above: tau can be found too large."""
    rng = np.random.default_rng(0)
    kappa, true, new, means = [], [], [], []
    error = DRIFT_SD * math.sqrt(2 / SEEDS)
    for _ in range(30):
        fit = fit_kappa(measured(rng, tau=tau, shift_sd=shift_sd), origin=origin)
        shift = rng.uniform(-1.5, 0.5)
        drift = KAPPA * shift + rng.normal(0, tau)
        found = drift + rng.normal(0, error)
        kappa.append(fit.kappa.low <= KAPPA <= fit.kappa.high)
        means.append(fit.kappa.mean)
        known, wide = fit.predict(shift), fit.predict(shift, drift_se=error, drift_df=SEEDS - 1)
        true.append(known.low <= drift <= known.high)
        new.append(wide.low <= found <= wide.high)
        assert wide.half_width > known.half_width
    for covered in (kappa, true, new):
        assert 0.83 <= np.mean(covered) <= 1.0
    assert np.mean(means) == pytest.approx(KAPPA, abs=0.05)


def test_errors_of_the_shift_flatten_the_ordinary_line_alone() -> None:
    rng = np.random.default_rng(1)
    fits = [fit_kappa(measured(rng, tau=0.05, shift_sd=0.6)) for _ in range(15)]
    assert np.mean([fit.ordinary[1] for fit in fits]) > -0.62
    assert np.mean([fit.kappa.mean for fit in fits]) == pytest.approx(KAPPA, abs=0.05)


def test_scatter_that_no_error_explains_is_found_and_widens_the_prediction() -> None:
    rng = np.random.default_rng(2)
    quiet, wild = fit_kappa(measured(rng, tau=0.0, ladders=8)), fit_kappa(measured(rng, tau=0.4, ladders=8))
    assert quiet.tau < 0.1
    assert wild.tau == pytest.approx(0.4, rel=0.3)
    assert wild.predict(-1.0).half_width > 4 * quiet.predict(-1.0).half_width


def test_each_ladder_has_a_slope_of_its_own() -> None:
    points = exact((-1, 0.7), (0, 0), (1, -0.7), ladder="batch") + exact((-1, 0.2), (0, 0), (1, -0.2), ladder="load")
    fit = fit_kappa([*points, *exact((-1, 1.0), (1, 1.0), ladder="short")])
    assert fit.ladders["batch"].mean == pytest.approx(-0.7, abs=1e-4)
    assert fit.ladders["load"].mean == pytest.approx(-0.2, abs=1e-4)
    assert math.isinf(fit.ladders["short"].half_width)


@pytest.mark.parametrize("origin", [False, True])
def test_ladders_that_differ_in_slope_are_detected(origin: bool) -> None:
    rng = np.random.default_rng(6)
    found = [fit_kappa(measured(rng, tau=0.1, ladders=2), origin=origin).same_slope for _ in range(25)]
    assert np.mean(np.array(found) < 0.05) <= 0.16
    points = [replace(p, drift=p.drift * (0.3 if p.ladder == "ladder 0" else 1.0)) for p in measured(rng, tau=0.05)]
    apart = fit_kappa([*points, *exact((-1, 0.7), (0.5, -0.35), ladder="more")], origin=origin)
    assert apart.same_slope < 0.05
    assert "ladders differ in slope" in str(apart)
    assert fit_kappa(exact((-1, 0.7), (0, 0), (1, -0.7))).same_slope == 1


def test_a_line_through_the_origin_predicts_no_drift_without_a_shift() -> None:
    fit = fit_kappa(exact((-1, 0.8), (-0.5, 0.3), (1, -0.7)), origin=True)
    assert fit.intercept == Interval(0, 0, 0, 3)
    assert fit.predict(0).mean == 0
    assert fit.covariance[0] == (0, 0)


def test_errors_of_a_prediction_add_up() -> None:
    fit = fit_kappa(measured(np.random.default_rng(3)))
    widths = [fit.predict(-1.0, a, b).half_width for a, b in ((0, 0), (0.3, 0), (0.3, 0.3))]
    assert widths == sorted(widths)
    assert fit.predict(-1.0, 0.3, shift_df=2).half_width > widths[1]
    assert fit.predict(-3.0).half_width > fit.predict(-0.5).half_width


@pytest.mark.parametrize(
    ("pairs", "origin", "says"),
    [
        (((0, 1), (1, 2)), False, "2 point(s): at least 3 are needed"),
        (((1, 1), (1, 2), (1, 3)), False, "every point has the shift 1"),
        ((), True, "0 point(s): at least 2 are needed"),
        (((0, 1), (0, 2)), True, "every point has the shift 0"),
    ],
)
def test_points_that_allow_no_line_are_refused_with_a_reason(pairs, origin: bool, says: str) -> None:
    with pytest.raises(JudgeError, match=re.escape(says)):
        fit_kappa(exact(*pairs), origin=origin)


def test_points_without_a_known_error_are_refused() -> None:
    with pytest.raises(JudgeError, match="point 'a' has shift_se inf"):
        KappaPoint.of("a", "batch", t_interval([1.0]), t_interval([1.0, 2.0]))
    with pytest.raises(JudgeError, match="drift_se -1"):
        KappaPoint(label="a", ladder="batch", shift=0, shift_se=0, drift=0, drift_se=-1)
