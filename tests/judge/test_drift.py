"""A drift: what is unresolved and why, when to add seeds, and what drift would have been seen."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.optimum import Curve, fit_optimum
from mue_check.judge.power import detectable_of
from mue_check.judge.verdict import Verdict

X = np.arange(-9.0, -2.9, 0.75)
CURVATURE = 0.03
NOISE = 1e-3 * np.random.default_rng(9).normal(size=(4, len(X)))


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
    assert f"(parabolas: {found.parabola}), regret {found.regret:.4f} nats" in str(found)
    assert str(found).endswith(f"detectable drift {found.detectable:.2f} octave")


def test_a_residual_widens_what_can_be_detected_and_is_no_pass() -> None:
    there = drifted(0.9, 1.0, 1.1, 1.0, residual=1.0)
    assert (there.verdict, drifted(0.9, 1.0, 1.1, 1.0).verdict) == (Verdict.RESIDUAL, Verdict.FAIL)
    assert there.detectable == pytest.approx(drifted(0.9, 1.0, 1.1, 1.0).detectable + 1)
    back = drifted(-0.9, -1.0, -1.1, -1.0, residual=-1.0)
    assert back.verdict is Verdict.RESIDUAL
    assert back.detectable > 1.5


def test_an_unresolved_drift_has_no_numbers_and_every_reason() -> None:
    falling = replace(OURS, losses=OURS.losses * 0 + 9.0 - 0.1 * X + NOISE, initial=np.full(4, 99.0))
    found = judge_drift(falling, falling, 0.5)
    reason = found.reason or ""
    assert reason.startswith("reference: the loss is lowest at the highest value")
    assert "; target: " in reason
    assert str(found) == f"unresolved: {reason}"
    assert (found.verdict, found.detectable) == (Verdict.INCONCLUSIVE, math.inf)
    assert math.isnan(found.regret)
    assert math.isnan(found.gain)
    assert found.interval.n == 0
    few = judge_drift(curve([-6.0, -6.1, -6.2]), curve([-6.1, -6.0, -6.1], seed=1), 0.5)
    assert few.reason == "3 seeds a side, at least 4 are needed"
    assert (few.by_seed, few.interval.n, few.reference.resolved, few.target.resolved) == ({}, 0, True, True)


def test_one_seed_without_a_minimum_does_not_make_a_drift_unresolved() -> None:
    target = curve([-6.0, -6.2, -5.9, -6.1], seed=1)
    losses = target.losses.copy()
    losses[2] = 2.6 - 0.02 * X
    found = judge_drift(OURS, replace(target, losses=losses), 0.5)
    assert "seed 2 has no minimum" in found.cross_check
    assert found.reason is None
    assert math.isnan(found.regret)
    assert found.interval.low < 0 < found.interval.high


def test_walls_that_move_apart_are_said() -> None:
    """The target's right wall alone lies 1.5 octaves higher: no one shift describes that."""

    def valley(right: float, seed: int) -> Curve:
        noise = 0.01 * np.random.default_rng(seed).normal(size=(8, len(X)))
        losses = 2 + 0.1 * np.clip(-7.5 - X, 0, None) + 0.1 * np.clip(X - right, 0, None) + noise
        return Curve(values=2.0**X, seeds=tuple(range(8)), losses=losses, initial=np.full(8, 9.0))

    still, apart = (judge_drift(valley(-6.0, 0), valley(right, 1), 0.5) for right in (-6.0, -4.5))
    assert still.registration
    assert apart.registration
    assert not still.registration.misfit
    assert "walls" not in str(still)
    assert apart.registration.left < apart.registration.right - 0.2
    assert apart.registration.misfit
    assert f"walls apart: {apart.registration.walls}" in str(apart)
    assert apart.verdict is Verdict.INCONCLUSIVE


def test_more_seeds_are_pointless_after_a_fail_or_when_it_is_known() -> None:
    known = drifted(0.2, 0.25, 0.3, 0.25)
    assert known.verdict is Verdict.PASS
    half = known.interval.plain_half_width
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
