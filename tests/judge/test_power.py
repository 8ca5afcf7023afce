"""Power is what it says, and residuals are judged as such, on simulated curves whose optima are known."""

import math

import numpy as np
import pytest

from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.interval import Looks, look_level, looks_text, t_interval
from mue_check.judge.optimum import Curve, fit_optimum, vertex_sd
from mue_check.judge.power import detectable_drift, detectable_of
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


@pytest.mark.parametrize("looks", [(6,), tuple(range(4, 9)), tuple(range(4, 13)), (4, 8)], ids=looks_text)
def test_the_detectable_drift_is_detected_in_95_of_100(looks: Looks) -> None:
    """With the true spread in place of a measured one the promise is exact, or a little better."""
    rng = np.random.default_rng(4)
    spread = 0.15
    drift = detectable_of(spread, looks, 0.5)
    failed, level = 0, look_level(looks)
    for _ in range(2000):
        drifts = drift + spread * rng.normal(size=looks[-1])
        verdicts = (judge_interval(t_interval(list(drifts[:n]), level), 0.5) for n in looks)
        failed += next((v for v in verdicts if v is not Verdict.INCONCLUSIVE), None) is Verdict.FAIL
    assert 0.938 <= failed / 2000 <= 0.975


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
