"""What a table hides is found and said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.sweeps.made_up import RATES, Capture, judge, runs, tidy_csv


def four_cells(**columns: object) -> pd.DataFrame:
    """One seed in each of four cells."""
    cells = [runs(0.0).assign(tokens=1e9 * 2**at) for at in range(4)]
    return pd.concat(cells, ignore_index=True).drop(columns="seed").assign(**columns)


def with_cells(changes: dict[tuple[int, str], object], **columns: object) -> pd.DataFrame:
    table = four_cells(**columns)
    for (row, column), value in changes.items():
        table.loc[row, column] = value
    return table


def rounded() -> pd.DataFrame:
    table = four_cells()
    return table.assign(lr=table.lr.where(table.width != 128, table.lr.map(lambda rate: float(f"{rate:.3g}"))))


def diverged() -> pd.DataFrame:
    table = four_cells()
    table.loc[table.lr == RATES[-1], "loss"] = 11.0
    table.loc[table.lr == RATES[-2], "loss"] = np.inf
    return table


def stopped_early() -> pd.DataFrame:
    table = pd.concat([four_cells(step=step) for step in (50, 100)])
    table["loss"] += 1 - table.step / 100
    return table[~((table.step == 100) & (table.lr == RATES[-1]))]


def random_search() -> pd.DataFrame:
    return runs(0.0).assign(lr=lambda t: t.lr * 2 ** np.random.default_rng(0).uniform(-0.4, 0.4, len(t)))


SEEDS = runs(0.0, seeds=range(6), noise=1e-3)
OPTIMIZERS = pd.concat([four_cells(optimizer=name) for name in ("adamw", "lion")])
DECAYS = np.random.default_rng(0).uniform(0.01, 0.1, 108)
Make = Callable[[], pd.DataFrame]
TRAPS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "two roundings": (rounded, ("values of 'lr' are 9 in two roundings, such as",)),
    "holes at random": (
        lambda: four_cells().drop(index=[3, 17, 31, 48, 62, 77, 90, 101]),
        ("8 of 108 points of the grids are missing, with no pattern",),
    ),
    "holes with a pattern": (
        lambda: four_cells().query(f"not (width == 256 and lr > {RATES[4]})"),
        ("16 of 108 points of the grids are missing, not at random: width 256 lacks 16 of 36",),
    ),
    "different grids": (
        lambda: four_cells().query(f"not (tokens == 1e9 and lr < {RATES[2]})"),
        ("the cells have different grids, of 7 to 9 rates; the smallest: tokens 1000000000",),
    ),
    "a random search": (random_search, ("the points are no grid (27 of 81)",)),
    "diverged runs": (
        diverged,
        ("24 of 108 runs diverged, 12 of them with a finite loss far above the valley, from rate 0.0156 on",),
    ),
    "failed and unfinished runs": (
        lambda: with_cells({(8, "state"): "crashed", (4, "state"): "running"}, state="finished"),
        ("counted as diverged: 1 of 108 runs, in state 'crashed'", "left out: 1 of 108 runs, in state 'running'"),
    ),
    "an optimum at the edge": (
        lambda: runs(2.5),
        ("the optimum is at an edge: at the highest rate in 1 of 3 curves, most of them of 256",),
    ),
    "two things differ": (
        lambda: four_cells().assign(heads=lambda t: t.width // 64),
        ("with 'width' also change 'heads'",),
    ),
    "another hyperparameter": (lambda: four_cells(weight_decay=DECAYS), ("'weight_decay' varies along the curves",)),
    "stopped early": (stopped_early, ("left out: 12 of 108 runs, stopped before 90% of the longest of their curve",)),
    "stopped early, without a history": (
        lambda: with_cells({(at, "_step"): 50 for at in (0, 9)}, _step=100),
        ("left out: 2 of 108 runs, stopped before 90% of the longest of their curve",),
    ),
    "crashed below the optimum": (
        lambda: with_cells({(0, "state"): "crashed"}, state="finished"),
        ("left out: 1 of 108 runs, without a finite loss below the best rate of their curve",),
    ),
    "rates without some seeds": (
        lambda: SEEDS.drop(index=[6]),
        ("5 runs are left out, at rates that not every seed of their arm ran",),
    ),
    "rows twice": (lambda: pd.concat([four_cells()] * 2), ("108 rows stand there twice",)),
    "repeated runs": (lambda: SEEDS.drop(columns="seed"), ("every point has 6 runs: they are taken as seeds",)),
    "holes in columns": (
        lambda: with_cells({(0, "lr"): np.nan, (1, "loss"): np.nan}),
        ("left out: 1 of 108 rows, without 'lr'", "left out: 1 of 107 rows, without 'loss'"),
    ),
    "uneven seeds": (lambda: SEEDS.query("width > 64 or seed < 4"), ("arms have 4 to 6 seeds",)),
}


def said(table: pd.DataFrame, folder: Path, capsys: Capture, *arguments: str) -> str:
    """All lines about how the table was read, and what it hides."""
    _, found = judge(capsys, tidy_csv(table, folder), *arguments)
    return "\n".join([*found["read"], *found["traps"]])


def test_a_clean_table_has_no_trap_but_its_one_seed(tmp_path: Path, capsys: Capture) -> None:
    one_seed = "one seed a point: the 4 matched cells are the replicates, not seeds"
    assert said(four_cells(), tmp_path, capsys) == one_seed
    assert said(SEEDS, tmp_path, capsys) == ""


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_said(name: str, tmp_path: Path, capsys: Capture) -> None:
    make, lines = TRAPS[name]
    found = said(make(), tmp_path, capsys)
    assert all(line in found for line in lines), found


def test_a_column_that_should_be_paired(tmp_path: Path, capsys: Capture) -> None:
    found = said(OPTIMIZERS, tmp_path, capsys, "--arm", "width", "--pair", "tokens")
    assert "'optimizer' differs within an arm and is not paired" in found
    assert "the mean of their losses counts" in found


def test_an_optimum_at_the_edge_is_open(tmp_path: Path, capsys: Capture) -> None:
    arm = judge(capsys, tidy_csv(runs(2.5), tmp_path))[1]["arms"][2]
    assert arm["verdict"] == "INCONCLUSIVE"
    assert arm["note"].startswith("the loss is lowest at the highest value tried")
