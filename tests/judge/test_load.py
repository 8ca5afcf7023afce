"""The load of routers that are even, collapsed, and in between."""

from collections.abc import Callable, Sequence

import pandas as pd
import pytest

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


def test_collapse_is_the_number_of_experts() -> None:
    assert judge_load(table(lambda _seed, _layer: [1.0, *[0.0] * 7])).imbalance.mean == pytest.approx(8.0)


def test_each_layer_counts_by_its_own_busiest_expert() -> None:
    """Layers that collapse on different experts would look even when they are pooled."""
    found = judge_load(table(lambda _seed, layer: [float(expert == layer) for expert in range(2)]))
    assert found.imbalance.mean == pytest.approx(2.0)


def test_the_interval_is_over_seeds() -> None:
    found = judge_load(table(lambda seed, _layer: [0.5 + 0.1 * seed, 0.5 - 0.1 * seed]))
    # 1.0, 1.2, 1.4, 1.6
    assert found.imbalance.mean == pytest.approx(1.3)
    assert found.imbalance.half_width == pytest.approx(3.182446 * 0.258199 / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("claim", "verdict"), [(1.0, Verdict.PASS), (2.0, Verdict.FAIL), (None, None)], ids=["kept", "broken", "none"]
)
def test_a_claim_about_the_sum_is_judged_from_the_table(claim: float | None, verdict: Verdict | None) -> None:
    rows = [
        {"seed": seed, "layer": 0, "expert": e, "load": 0.5, "weight_sum": 1.0, "variance_factor": 1.0}
        for seed in range(4)
        for e in range(2)
    ]
    assert judge_load(pd.DataFrame(rows), claim).verdict is verdict
    rows[0]["weight_sum"] = rows[1]["weight_sum"] = 1.2  # one seed that does not keep it is enough
    assert judge_load(pd.DataFrame(rows), claim).verdict is (Verdict.FAIL if claim else None)
