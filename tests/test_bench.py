"""The benchmark scripts run, do the same work on all sides, and write what they found. Nothing here is timed."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from bench.null_controls import POOLS, TOGETHER, Pool, judge, pairs_of_seeds, render
from bench.packed import unpack
from bench.sources import sharpness
from bench.triton_kernels import tables
from mue_check.axes import Regime
from mue_check.cost.calibration import Calibration
from mue_check.cost.work import PRICED
from mue_check.judge.optimum import Curve
from mue_check.rules import Knob

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the main function of a script in this process."""

    def main(script: str, *arguments: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        import_module(f"bench.{script}").main()

    monkeypatch.syspath_prepend(ROOT / "bench")  # where a script finds its neighbors
    return main


def test_it_runs_and_writes(tmp_path: Path, run: Callable[..., None]) -> None:
    out = tmp_path / "out.json"
    run("expert_product", "--quick", "--json", out)
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 1
    row = rows[0]
    assert all(row[name] > 0 for name in ("router_ms", "all_ms", "grouped_ms", "blocked_ms"))
    assert row["kernels_ms"] is None
    assert row["all_error"] == 0 < max(row["grouped_error"], row["blocked_error"]) < 1e-5


def test_the_tables_of_the_kernels_are_those_of_the_stored_results() -> None:
    visited = ROOT / "reports" / "bench" / "h100"
    assert tables(visited) == (visited / "kernels.md").read_text()


def test_null_controls_draw_disjoint_seeds_and_use_all_equally() -> None:
    pairs = list(pairs_of_seeds(seeds=60, count=50, each=12))
    assert all(len({*ours, *theirs}) == 24 for ours, theirs in pairs)
    uses = Counter(seed for pair in pairs for seed in (*pair[0], *pair[1]))
    assert set(uses) == set(range(60))
    assert max(uses.values()) - min(uses.values()) < 15


@pytest.mark.parametrize(("corpus", "regime", "knob"), [pool for pool in POOLS if pool[0] != "docstrings"])
def test_null_controls_judge_a_pool(tmp_path: Path, corpus: str, regime: Regime, knob: Knob) -> None:
    """Parabolas whose optima differ by 0.1 octave between seeds: pairs pass with few seeds, and drifts differ."""
    pool = Pool(corpus=corpus, regime=regime, knob=knob, root=tmp_path, seeds=TOGETHER)
    values, rng = np.array(pool.cells[0].values), np.random.default_rng(0)
    optima = pool.start + 0.1 * rng.standard_normal((48, 1))
    losses = 2 + 0.05 * (np.log2(values) - optima) ** 2 + 1e-4 * rng.standard_normal((48, len(values)))
    curve = Curve(values=values, seeds=tuple(range(48)), losses=losses, initial=np.full(48, 99.0))
    table = pd.DataFrame(judge(pool, curve, count=6))
    assert set(table["verdict"]) == {"PASS"}
    assert table["seeds"].max() <= 8
    assert 0.01 < table["drift"].std() < 0.15
    assert "| 6 | 6 | 0 | 0 |" in render(table)


def test_the_page_of_null_controls_is_that_of_the_stored_table() -> None:
    stored = ROOT / "reports" / "calibration"
    assert render(pd.read_csv(stored / "null_controls.csv")) == (stored / "null_controls.md").read_text()


def test_load_control_in_small(tmp_path: Path, run: Callable[..., None]) -> None:
    """One load, both controls: steering is there at once, and the published rule takes longer than a short training."""
    run("load_control", "--quick", "--out", tmp_path)
    table = pd.read_csv(tmp_path / "load_control.csv")
    assert set(table["window"]) == {"1-50", "held-out", "held-out, carried on"}
    error = table[table["window"] == "1-50"].groupby("control")["max_error"].max()
    assert error["steering"] < 0.1
    assert error["sign rule, step 0.01"] > 1
    assert (tmp_path / "load_control.md").read_text().count("| 16e2a,h=16 | zipf:1 | 60 |") == 4


def test_imagined_spreads_are_those_of_the_packed_records(tmp_path: Path, run: Callable[..., None]) -> None:
    out = tmp_path / "spreads.json"
    run("plan_spreads", "--json", out)
    made, kept = json.loads(out.read_text()), json.loads((ROOT / "mue_check/cost/spreads.json").read_text())
    assert made.keys() == kept.keys()
    assert {name: len(values) for name, values in made["drifts"].items()} == {
        name: len(values) for name, values in kept["drifts"].items()
    }
    for name in ("drift_sd", "power_sd"):
        assert made[name] == pytest.approx(kept[name], abs=2e-4)


def test_the_plan_is_held_to_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., None]) -> None:
    """On the packed records as if they were the study, at prices of no device."""
    machine = {"kind": "cpu", "device": "a paper machine", "torch": "0"}
    paper = Calibration(machine=machine, prices=dict.fromkeys(PRICED, 0.0) | {"calls": 1e-3}, error=1.0, stacks=0)
    unpack(ROOT / "reports/example/records.tar.xz", tmp_path / "study")
    monkeypatch.setattr("bench.plan_check.calibrate", lambda device: paper)
    out = tmp_path / "out"
    out.mkdir()
    run("plan_check", "--study", tmp_path / "study", "--axes", "duration", "--out", out)
    found = json.loads((out / "plan.json").read_text())
    cells = found["study"]["cells"]
    assert cells["measured"] == len(list((tmp_path / "study" / "cells").iterdir()))
    total = found["study"]["seconds"]["total"]
    assert total["planned"] > 0
    assert total["priced"] > 0
    kinds = found["kinds"]
    assert kinds["calls, flop, numbers"]["leave_one_out"]["median"] < kinds["calls, numbers"]["leave_one_out"]["median"]
    assert found["records"]["spread"]["all"]["median"] == pytest.approx(1)
    assert "| total |" in (out / "plan.md").read_text()


def test_sharpness_is_how_well_one_seed_places_a_known_curve() -> None:
    rng = np.random.default_rng(0)
    x, shifts, said = np.arange(-4, 5.0), np.linspace(-0.5, 0.5, 201), []

    def shape(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.02 * np.where(u < 0, u**2 / 2, u**2)

    placed = []
    for _ in range(100):
        noise = rng.normal(0, 0.01, (4, len(x))) + rng.normal(0, 0.05, (4, 1))
        curve = Curve(values=2.0**x, seeds=(0, 1, 2, 3), losses=2.5 + shape(x) + noise, initial=np.full(4, 9.0))
        said.append(sharpness(curve, 1.0)["sd"])
        rest = curve.losses[0] - shape(x - shifts[:, None])
        placed.append(shifts[np.argmin(rest.var(axis=1))])
    assert np.median(said) == pytest.approx(np.std(placed), rel=0.2)
