"""Simulated studies: the cells of a plan are those that the same questions train."""

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mue_check.axes import Ladder
from mue_check.catalog import get_tier
from mue_check.cost.simulated import FLOOR, NotSimulated, SimulatedStore, SimulatedStudy, measured_spreads
from mue_check.execute import local
from mue_check.execute.batches import Batch, Measured
from mue_check.execute.machine import environment
from mue_check.questions.drift import ask_drift
from mue_check.questions.routing import ask_routing
from mue_check.rules import get_rule
from mue_check.study.folder import Study

SMOKE = get_tier("smoke")


def make_study(root: Path) -> Study:
    return Study(root=root, tier=SMOKE, corpus="markov", rule=get_rule("complete_mue"), tolerance=0.5, command="pytest")


def ladder(name: str) -> Ladder:
    found = SMOKE.ladder(name)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[Batch]]:
    """A real study with simulated losses, and the batches in which it trained."""
    root, batches = tmp_path_factory.mktemp("trained"), []
    simulated = SimulatedStore(root / "nowhere", measured_spreads())

    def measure(batch: Batch) -> list[Measured]:
        batches.append(batch)
        found = []
        for cell in batch:
            simulated.has(cell)
            rows = simulated.rows(cell.key).assign(initial=9.0)
            rows["loss"] += 2 - FLOOR
            columns = {str(name): values.tolist() for name, values in rows.items()}
            found.append(Measured(columns=columns, environment=environment("cpu"), core_seconds=1.0))
        return found

    study = make_study(root / "study")
    study.store.prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "measure", measure)
        ask_both(study)
    return study, batches


@pytest.fixture
def trained(once: tuple[Study, list[Batch]], tmp_path: Path) -> tuple[Study, list[Batch]]:
    """A copy of it."""
    shutil.copytree(once[0].root, tmp_path / "study")
    return make_study(tmp_path / "study"), once[1]


def ask_both(study: Study) -> None:
    for name in ("width", "capacity"):
        ask_drift(study, ladder(name), ladder(name).targets[0])


def test_a_plan_has_the_batches_of_the_real_search(trained: tuple[Study, list[Batch]], tmp_path: Path) -> None:
    store = SimulatedStore(tmp_path / "empty", measured_spreads())
    ask_both(SimulatedStudy.of(make_study(tmp_path / "empty"), store))
    new = store.take_new()
    assert [[c.key for c in batch] for batch in new.batches] == [[c.key for c in batch] for batch in trained[1]]
    assert new.stored == 0
    assert not (tmp_path / "empty").exists()


def test_stored_cells_cost_nothing(trained: tuple[Study, list[Batch]]) -> None:
    real, batches = trained
    cells = [cell for batch in batches for cell in batch]

    def needed() -> tuple[set[str], int]:
        store = SimulatedStore(real.root, measured_spreads())
        ask_both(SimulatedStudy.of(real, store))
        found = store.take_new()
        assert store.take_new().batches == ()
        return {cell.key for batch in found.batches for cell in batch}, found.stored

    assert needed() == (set(), len(cells))
    (real.root / "cells" / f"{cells[-1].key}.json").unlink()
    assert needed() == ({cells[-1].key}, len(cells) - 1)


def test_a_reference_counts_once(tmp_path: Path) -> None:
    store = SimulatedStore(tmp_path, measured_spreads())
    study = SimulatedStudy.of(make_study(tmp_path), store)
    depth = get_tier("cpu").ladder("depth")
    assert depth is not None
    first, second = (ask_and_take(study, depth, i) for i in (0, 1))
    assert first
    assert second
    assert not first & second


def ask_and_take(study: SimulatedStudy, ladder: Ladder, target: int) -> set[str]:
    ask_drift(study, ladder, ladder.targets[target])
    return {cell.key for batch in study.simulated.take_new().batches for cell in batch}


def test_more_spread_needs_more_seeds(tmp_path: Path) -> None:
    def runs(sd: float) -> int:
        spreads = measured_spreads()
        spreads = type(spreads)(
            **{**vars(spreads), "drift_sd": {"width": sd}, "drifts": {"complete_mue": [0.0]}, "offset_rms": 0.0}
        )
        store = SimulatedStore(tmp_path, spreads)
        ask_drift(SimulatedStudy.of(make_study(tmp_path), store), ladder("width"), ladder("width").targets[0])
        return sum(len(c.values) * len(c.seeds) for batch in store.take_new().batches for c in batch)

    # reference: 5 coarse points of one seed, of which 3 lie on the fine grid of 5; 4 seeds a side; 2 and 4 far values
    assert runs(1e-6) == 5 + 2 + 2 + 3 * 5 + 4 * 5 + 4
    assert runs(0.3) > runs(1e-6)


def test_a_question_that_cannot_be_simulated_still_counts_its_cells(tmp_path: Path) -> None:
    store = SimulatedStore(tmp_path, measured_spreads())
    study = SimulatedStudy.of(make_study(tmp_path), store)
    with pytest.raises(NotSimulated, match="routing"):
        ask_routing(study, ladder("capacity"), ladder("capacity").targets[0])
    (batch,) = store.take_new().batches
    assert batch[0].measurement == "routing"


def test_simulated_losses_are_the_same_every_time(tmp_path: Path) -> None:
    tables: list[pd.DataFrame] = []
    for _ in range(2):
        store = SimulatedStore(tmp_path, measured_spreads())
        width = ladder("width")
        arm = make_study(tmp_path).arm(width, width.targets[0])
        cell = arm.cell("loss_grid", [2.0**-7, 2.0**-6], [0, 1])
        store.has(cell)
        tables.append(store.rows(cell.key))
    pd.testing.assert_frame_equal(*tables)
    assert list(tables[0]["seed"]) == [0, 0, 1, 1]
    assert math.isfinite(tables[0]["loss"].sum())


def test_a_plan_of_a_study_without_far_values_keeps_to_its_optimum(trained: tuple[Study, list[Batch]]) -> None:
    """Studies of version 0.3 lack the far values. Simulated in their place, they must not draw the search away."""
    real, batches = trained
    far = [cell for batch in batches for cell in batch if len(cell.values) == 4 and cell.seeds == (0,)]
    assert far
    for cell in far:
        (real.root / "cells" / f"{cell.key}.json").unlink()
    store = SimulatedStore(real.root, measured_spreads())
    ask_drift(SimulatedStudy.of(real, store), ladder("width"), ladder("width").targets[0])
    missing = {cell.key for batch in store.take_new().batches for cell in batch}
    assert missing <= {cell.key for cell in far}
