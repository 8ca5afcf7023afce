"""Power is what it says, and residuals are judged as such, on simulated curves whose optima are known."""

import math

import numpy as np
import pytest

from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.interval import Looks, look_level, looks_text, t_interval, two_part_interval
from mue_check.judge.optimum import Curve
from mue_check.judge.power import detectable_of
from mue_check.judge.verdict import Verdict, judge_interval

GRID = np.arange(-9.0, -3.7, 0.75)
CURVATURE, NOISE, SPREAD = 0.016, 0.004, 0.12
"""Of the Markov source: nats per octave squared, nats, octaves (docs/choices.md)."""


def curve(rng: np.random.Generator, optima: np.ndarray) -> Curve:
    """Losses around known optima with noise."""
    off = GRID - optima[:, None]
    losses = 2.9 + CURVATURE * off**2 + NOISE * rng.normal(size=off.shape)
    return Curve(values=2.0**GRID, seeds=tuple(range(len(optima))), losses=losses, initial=np.full(len(optima), 99.0))


def measured(rng: np.random.Generator, seeds: int, drift: float = 0.0, *, looks: Looks = ()) -> Drift:
    common = rng.normal(scale=SPREAD, size=seeds)
    ours, theirs = (common + rng.normal(scale=SPREAD / 2, size=seeds) for _ in range(2))
    return judge_drift(curve(rng, -6.5 + ours), curve(rng, -6.5 + drift + theirs), 0.5, looks=looks)


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


def test_what_seeds_share_is_part_of_the_detectable_drift() -> None:
    """The mean errs by both, and the interval has both parts."""
    rng, looks, spread, shared = np.random.default_rng(6), (8,), 0.2, 0.1
    drift = detectable_of(spread, looks, 0.5, shared)
    failed = 0
    for _ in range(2000):
        drifts = drift + shared * rng.normal() + spread * rng.normal(size=8)
        se = float(np.std(drifts, ddof=1)) / math.sqrt(8)
        interval = two_part_interval(float(drifts.mean()), se, 7, 8, look_level(looks), shared=shared)
        failed += judge_interval(interval, 0.5) is Verdict.FAIL
    assert 0.938 <= failed / 2000 <= 0.975
    assert drift > 0.5 + 2 * math.hypot(interval.own_error, shared)


def test_drifts_of_the_detectable_size_fail() -> None:
    """Over looks 4..8, with real curves and the spread that each study measured: at least 95 of 100, up to chance."""
    rng, looks = np.random.default_rng(5), tuple(range(4, 9))
    detectable = np.median([measured(rng, 8, looks=looks).detectable for _ in range(20)])
    assert 0.7 < detectable < 1.2
    verdicts = [measured(rng, 8, float(detectable), looks=looks).verdict for _ in range(60)]
    assert verdicts.count(Verdict.FAIL) >= 54
