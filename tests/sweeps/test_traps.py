"""What a table hides is found and said."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mue_check.cli import main
from tests.sweeps.made_up import RATES, runs, tidy_csv

Capture = pytest.CaptureFixture[str]


def said(table: pd.DataFrame, folder: Path, capsys: Capture, *arguments: str) -> str:
    """All lines about how the table was read, and what it hides."""
    main(["judge", str(tidy_csv(table, folder)), "--json", "-", *arguments])
    found = json.loads(capsys.readouterr().out)
    return "\n".join([*found["read"], *found["traps"]])


def four_cells() -> pd.DataFrame:
    cells = [runs(0.0).assign(tokens=1e9 * 2**at) for at in range(4)]
    return pd.concat(cells, ignore_index=True).drop(columns="seed")


def test_a_clean_table_has_no_trap_but_its_one_seed(tmp_path: Path, capsys: Capture) -> None:
    assert said(four_cells(), tmp_path, capsys) == "one seed a point: the 4 matched cells are the replicates, not seeds"
    assert said(runs(0.0, seeds=range(4), noise=1e-3), tmp_path, capsys) == ""


def test_two_roundings(tmp_path: Path, capsys: Capture) -> None:
    table = four_cells()
    table.loc[table.width == 128, "lr"] = table.lr.map(lambda rate: float(f"{rate:.3g}"))
    assert "values of 'lr' are 9 in two roundings, such as" in said(table, tmp_path, capsys)


def test_holes_at_random_and_not(tmp_path: Path, capsys: Capture) -> None:
    table = four_cells()
    spread = table.drop(index=[3, 17, 31, 48, 62, 77, 90, 101])
    assert "8 of 108 points of the grids are missing, with no pattern" in said(spread, tmp_path, capsys)
    high = table[~((table.width == 256) & (table.lr > RATES[4]))]
    found = said(high, tmp_path, capsys)
    assert "16 of 108 points of the grids are missing, not at random: width 256 lacks 16 of 36" in found


def test_cells_with_different_grids(tmp_path: Path, capsys: Capture) -> None:
    table = four_cells()
    short = table[~((table.tokens == 1e9) & (table.lr < RATES[2]))]
    assert "the cells have different grids, of 7 to 9 rates; the smallest: tokens 1000000000" in said(
        short, tmp_path, capsys
    )


def test_a_random_search_is_no_grid(tmp_path: Path, capsys: Capture) -> None:
    table = runs(0.0)
    table["lr"] *= 2 ** np.random.default_rng(0).uniform(-0.4, 0.4, len(table))
    assert "the points are no grid (27 of 81)" in said(table, tmp_path, capsys)


def test_diverged_runs(tmp_path: Path, capsys: Capture) -> None:
    table = four_cells()
    table.loc[table.lr == RATES[-1], "loss"] = 11.0
    table.loc[table.lr == RATES[-2], "loss"] = np.inf
    found = said(table, tmp_path, capsys)
    assert "24 of 108 runs diverged, 12 of them with a finite loss far above the valley, from rate 0.0156 on" in found


def test_failed_and_unfinished_runs(tmp_path: Path, capsys: Capture) -> None:
    table = four_cells().assign(state="finished")
    table.loc[8, "state"], table.loc[4, "state"] = "crashed", "running"
    found = said(table, tmp_path, capsys)
    assert "1 runs count as diverged: their state is crashed" in found
    assert "1 runs are left out: their state is running" in found


def test_an_optimum_at_the_edge(tmp_path: Path, capsys: Capture) -> None:
    table = runs(2.5)
    main(["judge", str(tidy_csv(table, tmp_path)), "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    edge = "the optimum is at an edge: 1 curves are lowest at their highest rate, most of them of 256"
    assert any(edge in trap for trap in found["traps"])
    assert found["arms"][2]["verdict"] == "INCONCLUSIVE"
    assert found["arms"][2]["note"].startswith("the loss is lowest at the highest value tried")


def test_arms_that_differ_in_more_than_one_thing(tmp_path: Path, capsys: Capture) -> None:
    table = four_cells()
    table["heads"] = table.width // 64
    assert "with 'width' also change 'heads'" in said(table, tmp_path, capsys)


def test_a_column_that_should_be_paired(tmp_path: Path, capsys: Capture) -> None:
    table = pd.concat([four_cells().assign(optimizer=name) for name in ("adamw", "lion")])
    found = said(table, tmp_path, capsys, "--arm", "width", "--pair", "tokens")
    assert "'optimizer' differs within an arm and is not paired" in found
    assert "the mean of their losses counts" in found


def test_another_hyperparameter_that_varies_along_the_curves(tmp_path: Path, capsys: Capture) -> None:
    table = four_cells().assign(weight_decay=np.random.default_rng(0).uniform(0.01, 0.1, 108))
    assert "'weight_decay' varies along the curves" in said(table, tmp_path, capsys)


def test_runs_that_were_stopped_early(tmp_path: Path, capsys: Capture) -> None:
    table = pd.concat([four_cells().assign(step=step) for step in (50, 100)])
    table["loss"] += 1 - table.step / 100
    stopped = table[~((table.step == 100) & (table.lr == RATES[-1]))]
    found = said(stopped, tmp_path, capsys)
    assert "12 runs are left out: stopped before 90% of the longest of their curve" in found


def test_rows_that_stand_there_twice(tmp_path: Path, capsys: Capture) -> None:
    assert "108 rows stand there twice" in said(pd.concat([four_cells()] * 2), tmp_path, capsys)


def test_repeated_runs_are_seeds(tmp_path: Path, capsys: Capture) -> None:
    table = runs(0.0, seeds=range(5), noise=1e-3).drop(columns="seed")
    assert "every point has 5 runs: they are taken as seeds" in said(table, tmp_path, capsys)


def test_rows_without_a_rate_or_a_loss(tmp_path: Path, capsys: Capture) -> None:
    table = four_cells()
    table.loc[0, "lr"], table.loc[1, "loss"] = np.nan, np.nan
    found = said(table, tmp_path, capsys)
    assert "1 rows are left out: they have no 'lr'" in found
    assert "1 rows are left out: they have no 'loss'" in found


def test_arms_with_different_numbers_of_seeds(tmp_path: Path, capsys: Capture) -> None:
    table = runs(0.0, seeds=range(6), noise=1e-3)
    assert "arms have 4 to 6 seeds" in said(table[(table.width > 64) | (table.seed < 4)], tmp_path, capsys)
