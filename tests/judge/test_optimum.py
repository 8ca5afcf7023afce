import math
from dataclasses import replace

import numpy as np
import pytest

from mue_check.judge.drift import judge_drift
from mue_check.judge.optimum import Curve, fit_optimum, lacking, mean_minimum, vertex_sd
from mue_check.judge.verdict import Verdict

GRID = np.arange(-9.0, -2.9, 0.5)


def parabolas(optima, *, grid=GRID, curvature=0.03, noise=0.0, floor=2.0, seed=0) -> Curve:
    rng = np.random.default_rng(seed)
    x = np.asarray(grid)
    losses = np.array([floor + 0.001 * i + curvature * (x - best) ** 2 for i, best in enumerate(optima)])
    losses += noise * rng.normal(size=losses.shape)
    return Curve(
        values=2.0**x, seeds=tuple(range(len(optima))), losses=losses, initial=np.full(len(optima), floor + 5.0)
    )


def test_exact_parabolas_give_exact_optima() -> None:
    optima = [-6.2, -6.0, -5.9, -6.3]
    fit = fit_optimum(parabolas(optima))
    assert list(fit.by_seed.values()) == pytest.approx(optima)
    assert list(fit.loss_by_seed.values()) == pytest.approx([2.0, 2.001, 2.002, 2.003])
    assert fit.curvature == pytest.approx(0.03)
    assert fit.residual_sd == pytest.approx(0, abs=1e-9)
    assert fit.interval.mean == pytest.approx(np.mean(optima))


def test_drift_is_paired_by_seed() -> None:
    """The seeds differ by octaves, the drift does not: the interval knows."""
    reference = [-7.0, -6.5, -6.2, -6.6]
    drift = judge_drift(parabolas(reference), parabolas([x + 0.25 for x in reference]), 0.5)
    assert drift.interval.mean == pytest.approx(0.25)
    assert drift.interval.half_width < 1e-5
    assert drift.verdict is Verdict.PASS
    assert drift.regret == pytest.approx(0.03 * 0.25**2)
    assert judge_drift(parabolas(reference), parabolas([x + 0.25 for x in reference]), 0.2).verdict is Verdict.FAIL


def test_gain_is_what_the_target_wins() -> None:
    reference, target = parabolas([-6.0] * 4, floor=2.5), parabolas([-6.0] * 4, floor=2.0)
    assert judge_drift(reference, target, 0.5).gain == pytest.approx(0.5)


def test_diverged_points_stay_out_of_the_fit() -> None:
    curve = parabolas([-5.0] * 4)
    losses = curve.losses.copy()
    losses[:, GRID > -3.6] = 50.0
    losses[1, GRID > -4.1] = np.nan
    hurt = Curve(values=curve.values, seeds=curve.seeds, losses=losses, initial=curve.initial)
    assert hurt.diverged.sum() == 4 * 2 + 1
    fit = fit_optimum(hurt)
    assert list(fit.by_seed.values()) == pytest.approx([-5.0] * 4)
    assert max(fit.window) <= -4.5


def test_an_initial_loss_that_is_not_a_number_does_not_switch_divergence_off() -> None:
    curve = parabolas([-5.0] * 4)
    start = curve.initial.copy()
    start[2] = math.nan
    hurt = Curve(values=curve.values, seeds=curve.seeds, losses=curve.losses, initial=start)
    assert hurt.diverged.sum(axis=1).tolist() == [0, 0, len(GRID), 0]
    assert fit_optimum(hurt).reason == "every value diverged"
    assert judge_drift(curve, hurt, 0.5).verdict is not Verdict.PASS


def of(losses) -> Curve:
    """Losses [S, L] on GRID, none of which diverged."""
    seeds, points = losses.shape
    return Curve(values=2.0 ** GRID[:points], seeds=tuple(range(seeds)), losses=losses, initial=np.full(seeds, 99.0))


def test_no_minimum_is_no_optimum() -> None:
    falling = of(np.tile(10 - GRID, (4, 1)))
    fit = fit_optimum(falling)
    assert not fit.resolved
    assert fit.reason == "the loss is lowest at the highest value tried, log2 -3.00"
    drift = judge_drift(falling, parabolas([-6.0] * 4), 0.5)
    assert drift.verdict is Verdict.INCONCLUSIVE
    assert drift.reason is not None
    assert drift.reason.startswith("reference: the loss is lowest")
    assert "unresolved" in str(drift)


def test_constant_losses_have_no_minimum() -> None:
    """Rounding alone decides where the lowest of them lies, and which way the parabola opens."""
    bit = np.random.default_rng(1).integers(-4, 5, (4, len(GRID)))
    for level in np.linspace(0.1, 4, 40):
        for losses in (np.full(bit.shape, level), level + np.spacing(level) * bit):
            fit = fit_optimum(of(losses))
            assert not fit.resolved
            assert "minimum" in (fit.reason or "") or "lowest at" in (fit.reason or "")


def test_flat_losses_have_no_minimum() -> None:
    """Noise around a constant: the lowest loss is taken for a minimum in 1 of 17 arms, so in 1 of 300 pairs."""
    rng = np.random.default_rng(2)
    arms = [of(2 + 0.01 * rng.normal(size=(4, len(GRID)))) for _ in range(300)]
    fits = [fit_optimum(arm) for arm in arms]
    assert np.mean([fit.resolved for fit in fits]) <= 0.08
    assert any("no significant minimum" in (fit.reason or "") for fit in fits)
    drifts = [judge_drift(a, b, 0.5) for a, b in zip(arms[::2], arms[1::2], strict=True)]
    assert {drift.verdict for drift in drifts} == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-3])
def test_curves_that_fall_for_ever_do_not_pass(noise: float) -> None:
    """The parabola through their last points has a vertex inside the window."""
    rng = np.random.default_rng(3)
    arms = [of(2 + np.exp(-1.2 * (GRID + 9)) + noise * rng.normal(size=(4, len(GRID)))) for _ in range(2)]
    drift = judge_drift(*arms, 0.5)
    assert drift.verdict is Verdict.INCONCLUSIVE
    assert drift.reason is not None


def test_seeds_that_are_copies_of_one_another_count_as_one() -> None:
    right = parabolas([-6.2, -6.0, -5.9, -6.3], noise=0.002)
    copies = of(np.concatenate([right.losses[:3], right.losses[:1]]))
    drift = judge_drift(right, copies, 0.5)
    assert drift.verdict is Verdict.INCONCLUSIVE
    assert drift.reason == "target: seeds 0, 3 have the same losses, so they count as one"


def test_seeds_that_differ_by_rounding_have_the_spread_of_their_fit() -> None:
    """Neither curve is a parabola, and the one drift that all seeds share says nothing about its own error."""
    x = GRID + 0.0
    bend = 0.04 * np.abs(np.sin(2 * x))

    def copies(best: float) -> Curve:
        return of(np.array([2 + 0.03 * (x - best) ** 2 + bend + 1e-9 * seed * x for seed in range(4)]))

    drift = judge_drift(copies(-6.0), copies(-5.7), 0.5)
    assert np.std(list(drift.by_seed.values())) < 1e-6
    expected = math.hypot(vertex_sd(drift.reference), vertex_sd(drift.target)) / 2
    assert drift.interval.standard_error == pytest.approx(expected)
    assert drift.interval.half_width > 0.1


def test_a_minimum_beside_a_divergence_is_one() -> None:
    curve = parabolas([-5.0, -5.1, -4.9, -5.0], noise=0.001)
    losses = curve.losses.copy()
    losses[:, GRID > -4.4] = np.nan
    fit = fit_optimum(of(losses))
    assert fit.resolved
    assert list(fit.by_seed.values()) == pytest.approx([-5.0, -5.1, -4.9, -5.0], abs=0.05)


def test_a_seed_that_learned_late_is_fitted_around_its_own_minimum() -> None:
    """As seen on text: one seed's minimum lies an octave lower, and the rest of its curve is a plateau."""
    grid = np.arange(-8.5, -4.4, 0.5)
    curve = parabolas([-6.0] * 5, grid=grid)
    losses = curve.losses.copy()
    late = np.array([2.34, 2.302, 2.28, 2.253, 2.269, 2.3, 2.312, 2.316, 2.318])
    losses[4] = late
    fit = fit_optimum(Curve(values=curve.values, seeds=curve.seeds, losses=losses, initial=curve.initial))
    assert fit.resolved
    assert [fit.by_seed[i] for i in range(4)] == pytest.approx([-6.0] * 4)
    assert fit.by_seed[4] == pytest.approx(-7.0, abs=0.3)


def test_everything_diverged() -> None:
    curve = parabolas([-6.0] * 4, floor=100.0)
    dead = Curve(values=curve.values, seeds=curve.seeds, losses=curve.losses, initial=np.zeros(4))
    assert mean_minimum(dead) == -1
    assert fit_optimum(dead).reason == "every value diverged"
    assert lacking(dead) == (5, 0)


@pytest.mark.parametrize(
    ("best", "wanted"), [(-8.0, (0, 0)), (-8.5, (1, 0)), (-9.5, (2, 0)), (-3.0, (0, 2)), (-3.5, (0, 1)), (-6.0, (0, 0))]
)
def test_which_points_the_window_lacks(best: float, wanted: tuple[int, int]) -> None:
    assert lacking(parabolas([best] * 2)) == wanted


def test_beside_a_divergence_points_are_wanted_below() -> None:
    grid = np.arange(-5.0, -2.9, 0.5)  # 5 points, the last 2 of them lost
    curve = parabolas([-4.5] * 2, grid=grid)
    losses = curve.losses.copy()
    losses[:, -2:] = np.nan  # the best of the rest is the last: window of 5 wants 2 more below
    assert lacking(Curve(values=curve.values, seeds=curve.seeds, losses=losses, initial=curve.initial)) == (2, 0)


def test_spread_of_the_optimum_is_the_textbook_one() -> None:
    """Var(x*) = sigma^2 / (4 c^2 Sxx) near the middle of the window."""
    sigma, curvature = 0.002, 0.03
    fits = fit_optimum(parabolas([-6.0] * 4000, curvature=curvature, noise=sigma))
    sxx = 0.25 * 2 * (1 + 4)
    assert np.std(list(fits.by_seed.values())) == pytest.approx(sigma / (2 * curvature * math.sqrt(sxx)), rel=0.05)


def test_the_interval_covers() -> None:
    """Simulated pairs with a known drift: the 95 % interval holds it in 92 to 98 of 100."""
    rng = np.random.default_rng(7)
    held, trials = 0, 600
    for _ in range(trials):
        offsets = 0.3 * rng.normal(size=4)
        reference = parabolas(-6 + offsets, noise=0.002, seed=rng.integers(2**31))
        target = parabolas(-5.8 + offsets + 0.1 * rng.normal(size=4), noise=0.002, seed=rng.integers(2**31))
        interval = judge_drift(reference, target, 0.5).interval
        held += interval.low <= 0.2 <= interval.high
    assert 0.92 <= held / trials <= 0.98


def test_a_run_beyond_a_cliff_is_part_of_no_valley() -> None:
    """It has lost more than half of what was learned, but not all of it: no parabola must bend to it."""
    valley = (
        0.8 + 0.06 * (GRID + 5) ** 2 * np.ones((4, 1)) + 1e-3 * np.random.default_rng(0).normal(size=(4, len(GRID)))
    )
    fallen = valley.copy()
    fallen[:, GRID > -4.2] = 1.7
    curves = [replace(of(losses), initial=np.full(4, 2.2)) for losses in (valley, fallen)]
    smooth, walled = map(fit_optimum, curves)
    assert curves[1].diverged.any(axis=0).tolist() == (GRID > -4.2).tolist()
    assert walled.interval.mean == pytest.approx(smooth.interval.mean, abs=0.05)
    assert walled.misfit < 0.01
    below = replace(curves[0], losses=valley + np.where(GRID < -5.5, 0.4, 0.0))
    assert not below.diverged.any()  # what has not learned yet is no cliff
