"""bench/against_commit.py: the sample, the comparison, and two processes that measure the same cells."""

import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")  # as for a script that is run from there
        return importlib.import_module("against_commit")


@pytest.fixture(scope="module")
def groups(script: ModuleType) -> list:
    return script.read_groups(ROOT / "reports" / "example" / "records.tar.xz")


def test_every_recorded_cell_is_in_one_group(script: ModuleType, groups: list) -> None:
    assert sum(len(group.cells) for group in groups) > 300
    for group in groups:
        alike = {str({**cell, "seeds": None}) for cell in group.cells}
        assert len(alike) == 1
        seeds = [seed for cell in group.cells for seed in cell["seeds"]]
        assert len(set(seeds)) == len(seeds)
        if len(group.cells) > 1 and group.cells[0]["measurement"] == "loss_grid":
            assert all(seed % 1000 < script.FIRST_SEEDS for seed in seeds)


def test_draws_follow_the_cost(script: ModuleType, groups: list) -> None:
    total = sum(group.seconds for group in groups)
    sample = script.draw(groups, 1000)
    assert sum(group.draws for group in sample) == 1000
    for group in sample:
        assert abs(group.draws - 1000 * group.seconds / total) <= 1


def test_difference_sees_values_forms_and_nan(script: ModuleType) -> None:
    old = [{"seed": [0, 1], "loss": [3.0, math.nan], "name": ["a", "b"]}]
    assert script.difference(old, [dict(old[0])]) == 0
    assert script.difference(old, [{**old[0], "loss": [3.3, math.nan]}]) == pytest.approx(0.3 / 3.3)
    for other in ({"loss": [3.0, 1.0]}, {"loss": [3.0]}, {"name": ["a", "c"]}):
        assert script.difference(old, [{**old[0], **other}]) == math.inf


def test_cost_is_extrapolated_linearly(script: ModuleType) -> None:
    assert script.extrapolated({"fixed": 3.0, "one": 1.0, "few": 2.0}, steps=11, all_steps=201) == pytest.approx(23.0)
    assert script.extrapolated({script.WHOLE: 5.0}, steps=200, all_steps=200) == 5.0


def test_two_processes_measure_the_same_cells(script: ModuleType, groups: list) -> None:
    """Both are this tree here: what a record holds is rebuilt, cut and measured, and its numbers agree."""
    group = min((g for g in groups if len(g.cells) == 3 and g.can_be_cut), key=lambda g: g.seconds / g.steps)
    versions = {"old": script.Version(ROOT), "new": script.Version(ROOT)}
    try:
        row = script.compare(versions, group, repeats=1, seconds=0.01)
        _, whole = versions["new"].measure(group.one_step())
        _, alone = versions["new"].measure(group.one_step()[:1])
    finally:
        for version in versions.values():
            version.close()
    assert row["largest_difference"] == 0
    assert row["steps_measured"] == script.LEAST_STEPS < row["steps"]
    assert row["old_seconds"] > 0
    assert script.difference(whole[:1], alone) < 1e-6
    assert script.over_draws([{**row, "new_seconds": row["old_seconds"] / 2, "draws": 3}])[0] == pytest.approx(2)
