"""Early curves: a target that falls behind, starts elsewhere or has no number fails, and one must learn at all."""

import math
from collections.abc import Callable

import pandas as pd
import pytest

from mue_check.judge.early import EarlyComparison, compare_early
from mue_check.judge.verdict import Verdict

STEPS = 100


def curve(loss: Callable[[float], float], *, seeds: int = 4, spread: float = 0.002) -> pd.DataFrame:
    """``loss`` of log2(step + 1); the seeds differ in level."""
    rows = [
        (seed, step, loss(math.log2(step + 1)) * (1 + spread * seed)) for seed in range(seeds) for step in range(STEPS)
    ]
    return pd.DataFrame(rows, columns=["seed", "step", "loss"])


def falling(trend: float, *, start: float = 3.6) -> Callable[[float], float]:
    """A loss that falls by that many octaves per doubling of the step."""
    return lambda doublings: start * 2 ** (-trend * doublings)


LEARNS = falling(0.05)


def compared(target: Callable[[float], float], reference: Callable[[float], float] = LEARNS) -> EarlyComparison:
    return compare_early(curve(reference), curve(target))


def test_equal_curves_pass() -> None:
    found = compared(LEARNS)
    assert (found.verdict, found.reason) == (Verdict.PASS, None)
    for interval in (found.start, found.level, found.trend):
        assert (interval.mean, interval.n) == (pytest.approx(0, abs=1e-9), 4)
    assert found.learning.mean == pytest.approx(-0.05)


def test_a_comparison_as_text() -> None:
    better = compared(falling(0.06))
    assert (
        str(better) == "log2 loss ratio -0.0525 [-0.0525, -0.0525], "
        "trend per doubling of steps -0.0100 [-0.0100, -0.0100]"
    )
    flat = compared(falling(0.007, start=36.0), falling(0.005))
    assert str(flat) == (
        "log2 loss ratio +3.3114 [+3.3114, +3.3114], trend per doubling of steps -0.0020 [-0.0020, -0.0020]; "
        "the losses before the first update differ by +3.322 [+3.322, +3.322] octaves; "
        "the target lies +3.311 [+3.311, +3.311] octaves above the reference; "
        "the reference does not learn: its loss changes by -0.0050 [-0.0050, -0.0050] octaves per doubling of the step"
    )


@pytest.mark.parametrize(
    ("trend", "verdict"), [(0.06, "PASS"), (0.2, "PASS"), (0.042, "PASS"), (0.038, "FAIL"), (0.0, "FAIL")]
)
def test_a_target_that_falls_behind_fails(trend: float, verdict: str) -> None:
    found = compared(falling(trend))
    assert found.verdict == verdict
    assert found.trend.mean == pytest.approx(0.05 - trend)
    assert ("falls behind" in (found.reason or "")) == (verdict == "FAIL")


@pytest.mark.parametrize("factor", [10.0, 1.0, 0.1])
def test_where_the_reference_does_not_learn_nothing_is_known(factor: float) -> None:
    """Flat curves have no trend against each other, whatever their levels."""
    found = compared(lambda _: 3.6 * factor, lambda _: 3.6)
    assert found.verdict is (Verdict.INCONCLUSIVE if factor == 1.0 else Verdict.FAIL)
    assert "the reference does not learn" in (found.reason or "")
    assert "does not learn" in str(found)
    assert compared(falling(0.05), lambda _: 3.6).verdict is Verdict.INCONCLUSIVE
    assert compared(falling(0.009), falling(0.009)).verdict is Verdict.INCONCLUSIVE
    assert compared(falling(0.011), falling(0.011)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("factor", "verdict", "says"),
    [
        (10.0, "FAIL", "before the first update"),
        (0.1, "FAIL", "before the first update"),
        (1.15, "FAIL", "above the reference"),
        (1.06, "PASS", ""),
        (0.86, "PASS", ""),
    ],
)
def test_a_constant_offset_is_judged(factor: float, verdict: str, says: str) -> None:
    found = compared(falling(0.05, start=3.6 * factor))
    assert found.trend.mean == pytest.approx(0, abs=1e-9)
    assert [found.level.mean, found.start.mean] == [pytest.approx(math.log2(factor))] * 2
    assert found.verdict == verdict
    assert says in (found.reason or "")
    assert bool(found.reason) == bool(says)


def test_the_start_is_the_loss_before_the_first_update() -> None:
    target = curve(LEARNS)
    target.loc[target["step"] == 0, "loss"] *= 1.5
    found = compare_early(curve(LEARNS), target)
    assert found.start.mean == pytest.approx(math.log2(1.5))
    assert found.verdict is Verdict.FAIL


def test_a_step_that_one_seed_lacks_fails() -> None:
    assert compare_early(curve(LEARNS), curve(LEARNS).drop(index=7)).verdict is Verdict.FAIL


def test_a_trend_that_is_not_known_is_inconclusive() -> None:
    target = curve(LEARNS)
    for seed, trend in enumerate((0.03, 0.07, 0.03, 0.07)):
        rows = target["seed"] == seed
        target.loc[rows, "loss"] = [falling(trend)(math.log2(step + 1)) for step in range(STEPS)]
    found = compare_early(curve(LEARNS), target)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "the target falls behind by +0.0000 [-0.0367, +0.0367] octaves" in (found.reason or "")


def test_seeds_are_paired_by_their_order() -> None:
    """A control asks the same arm with other seeds."""
    later = curve(LEARNS).assign(seed=lambda table: table["seed"] + 100)
    assert compare_early(curve(LEARNS), later).verdict is Verdict.PASS
    with pytest.raises(ValueError, match="broadcast"):
        compare_early(curve(LEARNS), curve(LEARNS, seeds=3))
