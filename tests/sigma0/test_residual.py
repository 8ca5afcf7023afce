"""Figures of a load, and lines of the residual of sigma_0 against them for points whose line is known."""

import math

import numpy as np
import pytest

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval
from mue_check.sigma0.imbalance import MEASURES, SHORTFALL, Imbalance
from mue_check.sigma0.residual import best_measure, fit_residuals
from mue_check.sigma0.shift import Sigma0Shift
from mue_check.spec import parse_load

LOADS = ("zipf:0.5", "zipf:1", "zipf:1.5", "hot:2:0.6", "hot:4:0.8", "hot:1:0.3")


def test_a_uniform_load_is_even() -> None:
    found = Imbalance.of(np.full(8, 3.0))
    assert found.shortfall_bits == pytest.approx(0, abs=1e-12)
    assert (found.experts, found.dead) == (8, 0)
    assert (found.variation, found.entropy, found.peak) == pytest.approx((0, 1, 1))


def test_figures_of_an_uneven_load() -> None:
    found = Imbalance.of(np.array([4.0, 2.0, 2.0, 0.0]))
    assert found.peak == pytest.approx(2)
    assert found.dead == 1
    assert found.variation == pytest.approx(math.sqrt(2) / 2)
    assert found.entropy == pytest.approx(1.5 / 2)
    assert found.shortfall_bits == pytest.approx(-1 / 3)  # what the dead one leaves to the others
    assert "1 without tokens" in str(found)


def shift_under(
    load: str, gamma: float, *, error: float = 0.0, width: float = 0.1, measure: str = SHORTFALL
) -> tuple[Imbalance, Sigma0Shift]:
    """The shift is ``gamma`` times the measure, and the theory's half the shortfall."""
    imbalance = Imbalance.of(np.array(parse_load(load, experts=16)))
    mean = gamma * MEASURES[measure](imbalance) + error
    shift = Interval(mean, mean - width, mean + width, 8)
    theory = imbalance.shortfall_bits / 2
    return imbalance, Sigma0Shift(shift=shift, theory=theory, seeds=())


def test_every_fit_recovers_an_exact_line_and_its_measure() -> None:
    fits = fit_residuals([shift_under(load, 0.2) for load in LOADS])
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
    best = best_measure(fit_residuals([shift_under(load, 0.2, measure=measure) for load in LOADS]))
    assert best is not None
    assert best.measure == measure
    assert best.shift_explained == pytest.approx(1)


def test_the_residual_follows_the_shortfall_even_where_nothing_was_measured() -> None:
    fits = {
        fit.measure: fit
        for fit in fit_residuals([shift_under(load, 0.0, error=i % 2 * 1e-3) for i, load in enumerate(LOADS)])
    }
    assert fits[SHORTFALL].explained > 0.99
    assert fits[SHORTFALL].shift_explained < 0.5


def test_an_error_of_the_reference_is_an_intercept_of_the_ordinary_fit_alone() -> None:
    fits = fit_residuals([shift_under(load, 0.2, error=0.08) for load in LOADS])
    fit = next(fit for fit in fits if fit.measure == SHORTFALL)
    assert fit.intercept == pytest.approx(0.08)
    assert fit.slope.low < -0.3 < fit.slope.high


def test_few_or_equal_loads_have_a_reason_and_no_rank() -> None:
    fits = fit_residuals([shift_under(load, 0.2) for load in LOADS[:2]])
    assert {fit.reason for fit in fits} == {"2 load(s): at least 3 are needed"}
    fits = fit_residuals([shift_under("zipf:1", 0.2)] * 3)
    assert all("loads that differ are needed" in str(fit.reason) for fit in fits)
    fits = fit_residuals([shift_under(load, 0.2) for load in LOADS[:4]])
    assert all(fit.reason is None for fit in fits)
    assert best_measure(fits) is None


def test_an_unbounded_residual_is_refused() -> None:
    with pytest.raises(JudgeError, match="finite interval"):
        fit_residuals([shift_under(load, 0.2, width=np.inf) for load in LOADS])
