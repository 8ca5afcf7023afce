"""The speed-up of curves whose ratio is known."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mue_check.judge.speedup import LEVELS, compare_learning

STEPS = tuple(2**i for i in range(1, 10))


def table(loss: Callable[[int, float], float], seeds: int = 4) -> pd.DataFrame:
    rows = [(seed, step, loss(seed, float(step))) for seed in range(seeds) for step in STEPS]
    return pd.DataFrame(rows, columns=["seed", "step", "loss"])


def falling(speed: float) -> Callable[[int, float], float]:
    """A loss that is linear in log2(steps), so that interpolation is exact; seeds differ in level."""
    return lambda seed, step: 4.0 + 0.05 * seed - 0.2 * math.log2(speed * step)


def test_a_curve_that_is_twice_as_fast_has_a_log2_ratio_of_one() -> None:
    found = compare_learning(table(falling(1.0)), table(falling(2.0)))
    np.testing.assert_allclose(found.ratios, 2.0)
    assert found.overall.mean == pytest.approx(1.0)
    assert found.overall.half_width == pytest.approx(0.0, abs=1e-9)
    assert all(level.mean == pytest.approx(1.0) for level in found.by_level)
    assert len(found.levels) == LEVELS
    assert (np.diff(found.levels) < 0).all()
    slower = compare_learning(table(falling(2.0)), table(lambda seed, step: falling(1.0)(seed, step) + 0.01 * step))
    assert str(slower) == (
        f"speed-up {2**slower.overall.mean:.2f} times, log2 {slower.overall}; at the lowest shared loss "
        f"{slower.levels[-1]:.3f} nats log2 {slower.by_level[-1]}"
    )


def test_the_slower_target_is_below_zero_and_equals_are_at_zero() -> None:
    assert compare_learning(table(falling(2.0)), table(falling(1.0))).overall.mean == pytest.approx(-1.0)
    assert compare_learning(table(falling(1.0)), table(falling(1.0))).overall.mean == pytest.approx(0.0)


def test_the_lowest_level_is_one_that_every_run_reaches() -> None:
    found = compare_learning(table(falling(1.0)), table(falling(2.0)))
    worst = 4.0 + 0.05 * 3 - 0.2 * math.log2(STEPS[-1])
    assert found.levels[-1] == pytest.approx(worst)
    best = 4.0 - 0.2 * math.log2(2 * STEPS[0])
    assert found.levels[0] == pytest.approx(best - (best - worst) / LEVELS)


def test_a_loss_that_rises_again_does_not_undo_what_was_reached() -> None:
    def bumpy(seed: int, step: float) -> float:
        return falling(1.0)(seed, step) + (0.5 if step == STEPS[4] else 0.0)

    found = compare_learning(table(bumpy), table(bumpy))
    np.testing.assert_allclose(found.ratios, 1.0)


def test_no_shared_loss_is_no_speedup() -> None:
    found = compare_learning(table(falling(1.0)), table(lambda s, t: 40.0 - 0.2 * math.log2(t)))
    assert found.overall.n == 0
    assert np.isnan(found.levels).all()
    assert found.ratios.shape == (1, 1)
    assert np.isnan(found.ratios).all()
    flat = table(lambda _seed, _step: 3.0)
    assert compare_learning(flat, flat).overall.n == 0
    none = compare_learning(table(falling(1.0)), table(falling(1.0)).assign(seed=lambda rows: rows["seed"] + 9))
    assert none.overall.n == 0


def test_a_run_that_is_not_finite_at_the_end_keeps_what_it_reached() -> None:
    def lost(seed: int, step: float) -> float:
        return math.nan if step > 64 else falling(1.0)(seed, step)

    found = compare_learning(table(falling(1.0)), table(lost))
    np.testing.assert_allclose(found.ratios, 1.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_not_reached(loss: float) -> None:
    def spiked(seed: int, step: float) -> float:
        return loss if step == STEPS[3] else falling(1.0)(seed, step)

    found = compare_learning(table(falling(1.0)), table(spiked))
    assert np.isfinite(found.ratios).all()
    assert found.overall.mean == pytest.approx(0, abs=0.1)
    assert found.ratios.max() == pytest.approx(1.0)
