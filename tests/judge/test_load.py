"""The load of routers that are even, collapsed, and in between."""

import math
from collections.abc import Callable, Sequence

import pandas as pd
import pytest

from mue_check.errors import JudgeError
from mue_check.judge.load import judge_load
from mue_check.judge.verdict import Verdict


def table(loads: Callable[[int, int], Sequence[float]], *, layers: int = 2, factor: float = 1.0) -> pd.DataFrame:
    rows = [
        (seed, layer, expert, load, 1.0, factor)
        for seed in range(4)
        for layer in range(layers)
        for expert, load in enumerate(loads(seed, layer))
    ]
    return pd.DataFrame(rows, columns=["seed", "layer", "expert", "load", "weight_sum", "variance_factor"])


def test_even_loads_are_one() -> None:
    found = judge_load(table(lambda _seed, _layer: [1 / 8] * 8, factor=1.5))
    assert found.imbalance.mean == pytest.approx(1.0)
    assert found.variance_factor.mean == pytest.approx(1.5)
    assert found.weight_sum.mean == pytest.approx(1.0)
    assert found.imbalance.n == 4


def test_each_layer_counts_by_its_own_busiest_expert() -> None:
    """Layers that collapse on different experts would look even when they are pooled."""
    found = judge_load(table(lambda _seed, layer: [float(expert == layer) for expert in range(2)]))
    assert found.imbalance.mean == pytest.approx(2.0)


def test_the_interval_is_over_seeds() -> None:
    found = judge_load(table(lambda seed, _layer: [0.5 + 0.1 * seed, 0.5 - 0.1 * seed]))
    # 1.0, 1.2, 1.4, 1.6
    assert found.imbalance.mean == pytest.approx(1.3)
    assert found.imbalance.half_width == pytest.approx(3.182446 * 0.258199 / 2, rel=1e-4)


def sums(*by_layer: float, seeds: int = 4, **columns: float) -> pd.DataFrame:
    """A table whose layers have these weight sums."""
    rows = [
        {"seed": seed, "layer": layer, "expert": e, "load": 0.5, "weight_sum": total, "variance_factor": 1.0} | columns
        for seed in range(seeds)
        for layer, total in enumerate(by_layer)
        for e in range(2)
    ]
    return pd.DataFrame(rows)


def test_layers_that_are_wrong_in_opposite_directions_fail() -> None:
    found = judge_load(sums(0.5, 1.5), 1.0)
    assert found.weight_sum.mean == pytest.approx(1.0)
    assert found.verdict is Verdict.FAIL
    assert found.worst == "0.5 in layer 0 of seed 0"
    assert str(found).endswith("weights sum to +1.00 [+1.00, +1.00], worst 0.5 in layer 0 of seed 0, claimed 1")
    text = "busiest expert +1.00 [+1.00, +1.00] times the mean load, variance factor +1.00 [+1.00, +1.00], "
    text += "weights sum to +1.00 [+1.00, +1.00]"
    assert str(judge_load(sums(1.0, 1.0), 1.0)) == text
    unclaimed = judge_load(sums(1.0, 1.0))
    assert (str(unclaimed), unclaimed.worst) == (text, "")


def test_a_sum_that_is_not_a_number_fails_whichever_layer_or_seed_has_it() -> None:
    for row in range(16):
        table = sums(1.0, 1.0)
        table.loc[row, "weight_sum"] = math.nan
        found = judge_load(table, 1.0)
        assert found.verdict is Verdict.FAIL
        assert math.isnan(found.weight_sum.mean)
        assert found.worst == f"nan in layer {row // 2 % 2} of seed {row // 4}"


def test_a_load_that_is_not_a_number_is_not_left_out_of_the_mean() -> None:
    table = sums(1.0, 1.0)
    table.loc[3, ["load", "variance_factor"]] = math.nan
    found = judge_load(table)
    assert math.isnan(found.imbalance.mean)
    assert math.isnan(found.variance_factor.mean)


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(JudgeError, match=r"^the routing table has no rows$"):
        judge_load(sums(), 1.0)
