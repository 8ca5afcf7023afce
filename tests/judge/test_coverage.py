"""Intervals cover and power is what it says, on simulated curves whose optima are known."""

import math

import numpy as np
import pytest

from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.interval import t_interval
from mue_check.judge.optimum import Curve, fit_optimum
from mue_check.judge.power import detectable_drift, vertex_sd
from mue_check.judge.verdict import Verdict, judge_interval, meets

GRID = np.arange(-9.0, -3.7, 0.75)
CURVATURE, NOISE, SPREAD = 0.016, 0.004, 0.12
"""Of the Markov source: nats per octave squared, nats, octaves (docs/choices.md)."""


def curve(rng: np.random.Generator, optima: np.ndarray, *, skew: float = 0.0) -> Curve:
    """Losses around known optima, with noise and a third-order term; the grid is the search's own, not centred."""
    off = GRID - optima[:, None]
    losses = 2.9 + CURVATURE * off**2 + skew * off**3 + NOISE * rng.normal(size=off.shape)
    return Curve(values=2.0**GRID, seeds=tuple(range(len(optima))), losses=losses, initial=np.full(len(optima), 99.0))


def measured(rng: np.random.Generator, seeds: int, drift: float = 0.0, skew: float = 0.0) -> Drift:
    common = rng.normal(scale=SPREAD, size=seeds)
    ours, theirs = (common + rng.normal(scale=SPREAD / 2, size=seeds) for _ in range(2))
    return judge_drift(curve(rng, -6.5 + ours, skew=skew), curve(rng, -6.5 + drift + theirs, skew=skew), 0.5)


def asked(rng: np.random.Generator, drift: float = 0.0, skew: float = 0.0) -> Drift:
    """As the suites ask: four seeds, more while the answer is open, eight at most."""
    state = rng.bit_generator.state
    for seeds in range(4, 9):
        rng.bit_generator.state = state
        found = measured(rng, seeds, drift, skew)
        if found.settled(0.25):
            break
    rng.bit_generator.state = state
    rng.normal(size=10_000)
    return found


@pytest.mark.parametrize("seeds", [4, 8])
@pytest.mark.parametrize("skew", [0.0, 0.001])
def test_the_interval_of_a_fixed_number_of_seeds_covers(seeds: int, skew: float) -> None:
    rng = np.random.default_rng(1)
    found = [measured(rng, seeds, 0.2, skew).interval for _ in range(500)]
    assert 0.92 <= np.mean([i.low <= 0.2 <= i.high for i in found]) <= 0.98


def test_adding_seeds_until_the_answer_is_clear_does_not_spoil_it() -> None:
    rng = np.random.default_rng(2)
    found = [asked(rng, 0.2, skew=0.001) for _ in range(500)]
    assert {f.interval.n for f in found} > {4}
    assert 0.92 <= np.mean([f.interval.low <= 0.2 <= f.interval.high for f in found]) <= 0.98


def test_the_reference_against_itself_is_no_failure() -> None:
    rng = np.random.default_rng(3)
    assert sum(asked(rng).verdict is Verdict.FAIL for _ in range(300)) <= 3


@pytest.mark.parametrize("seeds", [4, 6])
def test_the_detectable_drift_is_detected_in_95_of_100(seeds: int) -> None:
    """With the true spread in place of a measured one the promise is exact."""
    rng = np.random.default_rng(4)
    spread = 0.15
    unit = rng.normal(size=seeds)
    unit = (unit - unit.mean()) / unit.std(ddof=1) * spread
    sharp = fit_optimum(curve(rng, np.full(4, -6.5)))
    drift = detectable_drift(list(unit), sharp, sharp, 0.5)
    assert math.hypot(vertex_sd(sharp), vertex_sd(sharp)) < spread
    verdicts = [judge_interval(t_interval(list(drift + spread * rng.normal(size=seeds))), 0.5) for _ in range(3000)]
    assert np.mean([v is Verdict.FAIL for v in verdicts]) == pytest.approx(0.95, abs=0.012)


def test_seeds_that_agree_by_luck_do_not_make_power() -> None:
    rng = np.random.default_rng(5)
    fit = fit_optimum(curve(rng, np.full(4, -6.5)))
    assert vertex_sd(fit) == pytest.approx(NOISE / (2 * CURVATURE * math.sqrt(5.625)), rel=0.5)
    lucky = detectable_drift([0.1, 0.1, 0.1, 0.1], fit, fit, 0.5)
    assert lucky > 0.5 + 2 * math.hypot(vertex_sd(fit), vertex_sd(fit))
    assert detectable_drift([0.1], fit, fit, 0.5) == math.inf
    found = measured(rng, 4)
    assert found.detectable > 0.5
    assert f"detectable drift {found.detectable:.2f} octave" in str(found)


@pytest.mark.parametrize(
    ("values", "residual", "verdict"),
    [
        ([0.7, 0.8, 0.9], 1.0, Verdict.RESIDUAL),
        ([-0.7, -0.8, -0.9], -1.0, Verdict.RESIDUAL),
        ([-0.7, -0.8, -0.9], 1.0, Verdict.FAIL),
        ([1.8, 1.9, 2.0], 1.0, Verdict.FAIL),
        ([0.0, 0.1, 0.2], 1.0, Verdict.PASS),
        ([1.3, 1.4, 1.6], 1.0, Verdict.INCONCLUSIVE),
        ([0.7, 0.8, 0.9], 0.0, Verdict.FAIL),
    ],
)
def test_a_residual_is_neither_a_pass_nor_a_wider_tolerance(
    values: list[float], residual: float, verdict: Verdict
) -> None:
    assert judge_interval(t_interval(values), 0.5, residual=residual) is verdict


def test_a_pass_meets_a_residual_and_a_residual_meets_no_pass() -> None:
    assert meets(Verdict.PASS, "RESIDUAL")
    assert meets(Verdict.RESIDUAL, "RESIDUAL")
    assert not meets(Verdict.RESIDUAL, "PASS")
    assert not meets(Verdict.FAIL, "RESIDUAL")
    assert not meets(Verdict.PASS, "FAIL")
