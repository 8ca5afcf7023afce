"""Lines of the residual of sigma_0 against imbalance, of points whose line is known."""

import numpy as np
import pytest

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.residual import MEASURES, SHORTFALL, ResidualPoint, best_measure, fit_residuals
from mue_check.spec import parse_load

LOADS = ("zipf:0.5", "zipf:1", "zipf:1.5", "hot:2:0.6", "hot:4:0.8", "hot:1:0.3")


def point(
    load: str, gamma: float, *, error: float = 0.0, width: float = 0.1, measure: str = SHORTFALL
) -> ResidualPoint:
    """The shift is ``gamma`` times the measure, and the theory's half the shortfall."""
    imbalance = Imbalance.of(np.array(parse_load(load, experts=16)))
    mean = gamma * MEASURES[measure](imbalance) + error
    left = mean - imbalance.shortfall_bits / 2
    shift, residual = (Interval(m, m - width, m + width, 8) for m in (mean, left))
    return ResidualPoint(label=load, imbalance=imbalance, shift=shift, residual=residual)


def test_every_fit_recovers_an_exact_line_and_its_measure() -> None:
    fits = fit_residuals([point(load, 0.2) for load in LOADS])
    best = best_measure(fits)
    assert best is not None
    assert best.measure == SHORTFALL
    assert best.explained == pytest.approx(1)
    for found in (best.slope, best.ordinary, best.robust):
        assert found.mean == pytest.approx(-0.3)
    assert best.intercept == pytest.approx(0, abs=1e-9)
    assert [fit.measure for fit in fits] == list(MEASURES)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_measure_that_made_the_shift_explains_most(measure: str) -> None:
    best = best_measure(fit_residuals([point(load, 0.2, measure=measure) for load in LOADS]))
    assert best is not None
    assert best.measure == measure
    assert best.shift_explained == pytest.approx(1)


def test_the_residual_follows_the_shortfall_even_where_nothing_was_measured() -> None:
    fits = {
        fit.measure: fit
        for fit in fit_residuals([point(load, 0.0, error=i % 2 * 1e-3) for i, load in enumerate(LOADS)])
    }
    assert fits[SHORTFALL].explained > 0.99
    assert fits[SHORTFALL].shift_explained < 0.5


def test_an_error_of_the_reference_is_an_intercept_of_the_ordinary_fit_alone() -> None:
    fits = fit_residuals([point(load, 0.2, error=0.08) for load in LOADS])
    fit = next(fit for fit in fits if fit.measure == SHORTFALL)
    assert fit.intercept == pytest.approx(0.08)
    assert fit.slope.low < -0.3 < fit.slope.high


def test_few_or_equal_loads_have_a_reason_and_no_rank() -> None:
    fits = fit_residuals([point(load, 0.2) for load in LOADS[:2]])
    assert {fit.reason for fit in fits} == {"2 load(s): at least 3 are needed"}
    fits = fit_residuals([point("zipf:1", 0.2)] * 3)
    assert all("loads that differ are needed" in str(fit.reason) for fit in fits)
    fits = fit_residuals([point(load, 0.2) for load in LOADS[:4]])
    assert all(fit.reason is None for fit in fits)
    assert best_measure(fits) is None


def test_an_unbounded_residual_is_refused() -> None:
    with pytest.raises(JudgeError, match="finite interval"):
        fit_residuals([point(load, 0.2, width=np.inf) for load in LOADS])
