"""The speed-up of curves whose ratio is known."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mue_check.judge.speedup import compare_learning

STEPS = tuple(2**i for i in range(10))


def table(loss: Callable[[int, float], float], seeds: int = 4) -> pd.DataFrame:
    rows = [(seed, step, loss(seed, float(step))) for seed in range(seeds) for step in STEPS]
    return pd.DataFrame(rows, columns=["seed", "step", "loss"])


def falling(speed: float) -> Callable[[int, float], float]:
    """A loss that is linear in log2(steps), so that interpolation is exact; seeds differ in level."""
    return lambda seed, step: 4.0 + 0.05 * seed - 0.2 * math.log2(speed * step)


def test_a_curve_that_is_twice_as_fast_has_a_log2_ratio_of_one() -> None:
    found = compare_learning(table(falling(1.0)), table(falling(2.0)))
    assert found.horizons.tolist() == list(STEPS[1:])
    np.testing.assert_allclose(found.ratios, 1.0)
    assert found.overall.mean == pytest.approx(1.0)
    assert found.overall.half_width == pytest.approx(0.0, abs=1e-9)
    assert str(found) == f"speed-up 2.00 times at 512 steps, log2 {found.overall}"


def test_an_advantage_that_shows_late_is_not_averaged_with_the_beginning() -> None:
    """From step 32 on, the target falls twice as fast as the reference, per doubling."""
    late = table(lambda seed, step: falling(1.0)(seed, step) - 0.2 * max(0.0, math.log2(step / 32)))
    found = compare_learning(table(falling(1.0)), late)
    np.testing.assert_allclose(found.ratios[:, :5], 0.0, atol=1e-9)
    assert found.overall.mean == pytest.approx(2.0)  # 512 steps against 128


def test_each_seed_goes_to_its_own_final_loss() -> None:
    found = compare_learning(table(falling(1.0)), table(lambda s, step: falling(2.0**s)(s, step)))
    np.testing.assert_allclose(found.ratios[:, -1], [0, 1, 2, 3])


def test_a_loss_that_rises_again_does_not_undo_what_was_reached() -> None:
    def bumpy(seed: int, step: float) -> float:
        return falling(1.0)(seed, step) + (0.5 if step == STEPS[4] else 0.0)

    np.testing.assert_allclose(compare_learning(table(bumpy), table(bumpy)).ratios, 0.0)


def test_no_shared_loss_is_no_speedup() -> None:
    found = compare_learning(table(falling(1.0)), table(lambda s, t: 40.0 - 0.2 * math.log2(t)))
    assert found.overall.n == 0
    assert np.isnan(found.ratios).all()
    none = compare_learning(table(falling(1.0)), table(falling(1.0)).assign(seed=lambda rows: rows["seed"] + 9))
    assert none.overall.n == 0


@pytest.mark.parametrize("loss", [math.nan, -math.inf])
def test_a_run_that_diverges_has_no_speedup_from_there_on(loss: float) -> None:
    def lost(seed: int, step: float) -> float:
        return loss if step > 64 and seed == 2 else falling(1.0)(seed, step)

    found = compare_learning(table(falling(1.0)), table(lost))
    np.testing.assert_allclose(found.ratios[:, :6], 0.0)
    assert np.isnan(found.ratios[2, 6:]).all()
    assert found.overall.n == 0
