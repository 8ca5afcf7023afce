"""A drift: what is unresolved and why, when to add seeds, and what drift would have been seen."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.optimum import Curve, fit_optimum
from mue_check.judge.power import detectable_drift, detectable_of
from mue_check.judge.verdict import Verdict

X = np.arange(-9.0, -2.9, 0.75)
CURVATURE = 0.03


def curve(optima: list[float], *, noise: float = 1e-4, floor: float = 2.0, seed: int = 0) -> Curve:
    losses = floor + CURVATURE * (X - np.array(optima)[:, None]) ** 2
    losses += noise * np.random.default_rng(seed).normal(size=losses.shape)
    return Curve(values=2.0**X, seeds=tuple(range(len(optima))), losses=losses, initial=np.full(len(optima), 9.0))


OURS = curve([-6.0, -6.2, -5.9, -6.1])


def drifted(*by_seed: float, tolerance: float = 0.5, residual: float = 0.0) -> Drift:
    optima = [-6.0, -6.2, -5.9, -6.1]
    return judge_drift(OURS, curve([a + b for a, b in zip(optima, by_seed, strict=True)], seed=1), tolerance, residual)


def test_a_drift_as_text() -> None:
    found = drifted(0.2, 0.25, 0.3, 0.25)
    assert str(found).startswith(f"drift {found.interval} octaves over 4 seeds")
    optima = f"optimum 0.015 -> 0.018, log2 {found.reference.interval} -> {found.target.interval}"
    assert found.text("weight decay").startswith(f"drift {found.interval} octaves of weight decay over 4 seeds")
    assert f"({optima}), regret {found.regret:.4f} nats" in str(found)
    assert str(found).endswith(f"detectable drift {found.detectable:.2f} octave")


def test_a_residual_widens_what_can_be_detected_and_is_no_pass() -> None:
    there = drifted(0.9, 1.0, 1.1, 1.0, residual=1.0)
    assert (there.verdict, drifted(0.9, 1.0, 1.1, 1.0).verdict) == (Verdict.RESIDUAL, Verdict.FAIL)
    assert there.detectable == pytest.approx(drifted(0.9, 1.0, 1.1, 1.0).detectable + 1)
    back = drifted(-0.9, -1.0, -1.1, -1.0, residual=-1.0)
    assert back.verdict is Verdict.RESIDUAL
    assert back.detectable > 1.5


def test_an_unresolved_drift_has_no_numbers_and_every_reason() -> None:
    flat = replace(OURS, losses=np.tile(9.0 - 0.1 * X, (4, 1)), initial=np.full(4, 99.0))
    found = judge_drift(flat, flat, 0.5)
    reason = found.reason or ""
    assert reason.startswith("reference: ")
    assert "; target: " in reason
    assert str(found) == f"unresolved: {reason}"
    assert (found.verdict, found.detectable) == (Verdict.INCONCLUSIVE, math.inf)
    assert math.isnan(found.regret)
    assert math.isnan(found.gain)
    assert (found.by_seed, found.interval.n) == ({}, 0)
    few = judge_drift(curve([-6.0] * 3), curve([-6.1] * 3, seed=1), 0.5)
    assert few.reason == "3 seeds in common, at least 4 are needed"
    assert (len(few.by_seed), few.interval.n, few.reference.resolved, few.target.resolved) == (3, 3, True, True)


def test_more_seeds_are_pointless_after_a_fail_or_when_it_is_known() -> None:
    known = drifted(0.2, 0.25, 0.3, 0.25)
    assert known.verdict is Verdict.PASS
    half = (known.interval.high - known.interval.low) / 2
    assert known.settled(half * 1.01)
    assert not known.settled(half * 0.99)
    open_ = drifted(0.3, 0.5, 0.7, 0.5)
    assert open_.verdict is Verdict.INCONCLUSIVE
    assert not open_.settled(99.0)
    fail = drifted(0.9, 1.5, 1.2, 1.2)
    assert fail.verdict is Verdict.FAIL
    assert fail.settled(0.0)
    assert replace(open_, reason="no minimum").settled(0.0)


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.1), (4, 0.1), (8, 0.3)])
def test_the_detectable_drift_clears_the_tolerance_in_95_of_100(seeds: int, spread: float) -> None:
    found = detectable_of(spread, (seeds,), 0.5)
    shift = (found - 0.5) / (spread / math.sqrt(seeds))
    assert stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, shift) == pytest.approx(0.95, abs=1e-6)


def test_the_spread_is_that_of_the_drifts_or_of_the_fits() -> None:
    sharp = drifted(0.2, 0.25, 0.3, 0.25).reference
    drifts = [0.1, 0.3, 0.2, 0.5]
    assert detectable_drift(drifts, sharp, sharp, 0.5) == pytest.approx(
        detectable_of(float(np.std(drifts, ddof=1)), (4,), 0.5)
    )
    # the textbook's standard error of a vertex; the noise is that of the reference or of the target alone
    noisy = replace(sharp, residual_sd=0.01, curvature=0.02, window=(-6.0, -5.25, -4.5, -3.75, -3.0))
    error = 0.01 / (2 * 0.02 * math.sqrt(5.625))
    still = replace(sharp, residual_sd=1e-12)
    for ours, theirs in ((noisy, still), (still, noisy)):
        assert detectable_drift([0.1] * 4, ours, theirs, 0.5) == pytest.approx(
            detectable_of(error, (4,), 0.5), rel=1e-3
        )
    both = detectable_of(math.sqrt(2) * error, (4,), 0.5)
    assert detectable_drift([0.1] * 4, noisy, noisy, 0.5) == pytest.approx(both)
    assert detectable_drift([0.1, 0.2], noisy, noisy, 0.5) < math.inf
    assert detectable_drift([0.1], noisy, noisy, 0.5) == math.inf


def test_the_noise_of_a_fit_has_two_degrees_of_freedom_in_five_points() -> None:
    """This pattern is orthogonal to all parabolas, so all of it is residual."""
    x, noise = X[2:7], 1e-4
    losses = 2.0 + CURVATURE * (x + 6.0) ** 2 + noise * np.array([-1, 2, 0, -2, 1])
    losses = losses + 0.01 * np.arange(4)[:, None]  # seeds with the same losses would count as one
    found = fit_optimum(Curve(values=2.0**x, seeds=(0, 1, 2, 3), losses=losses, initial=np.full(4, 9.0)))
    assert found.reason is None
    assert found.residual_sd == pytest.approx(noise * math.sqrt(10 / 2))
    assert list(found.by_seed.values()) == pytest.approx([-6.0] * 4)
    assert found.window == pytest.approx(tuple(x))
