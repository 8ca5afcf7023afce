import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mue_check import Dense, HyperParameters, ModelSpec, Scenario, StoreError, TrainSpec, get_rule
from mue_check.records import Cell, Store
from mue_check.records.files import write_json

MODEL = ModelSpec(width=32, depth=1, feed_forward=Dense(hidden=32))
TRAIN = TrainSpec(steps=10, batch=2)


def make_cell(**changes) -> Cell:
    scenario = Scenario.of(MODEL, TRAIN)
    cell = Cell(
        measurement="loss_grid",
        model=MODEL,
        prescription=get_rule("complete_mue").prescribe(scenario, scenario),
        base=HyperParameters(),
        train=TRAIN,
        corpus="markov",
        corpus_fingerprint="abc",
        values=(0.01, 0.02),
        seeds=(0,),
    )
    return replace(cell, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "study")
    store.prepare()
    return store


COLUMNS = {"seed": [0, 0], "value": [0.01, 0.02], "loss": [1 / 3, math.nan], "name": ["a", "b"]}


def test_numbers_come_back_to_the_last_bit(store: Store) -> None:
    cell = make_cell()
    assert not store.has(cell)
    store.put(cell, COLUMNS, core_seconds=2.5)
    assert store.has(cell)
    rows = store.rows(cell.key)
    assert rows["loss"][0] == 1 / 3
    assert math.isnan(rows["loss"][1])
    assert rows["name"].tolist() == ["a", "b"]
    assert store.cost(cell.key) == 2.5


def test_a_column_with_nothing_finite_is_still_numbers(store: Store) -> None:
    store.put(make_cell(), {"loss": [math.inf, -math.inf]}, core_seconds=0)
    assert store.rows(make_cell().key)["loss"].isna().all()
    assert store.rows(make_cell().key)["loss"].dtype == float


def test_what_is_stored_stays(store: Store) -> None:
    cell = make_cell()
    store.put(cell, COLUMNS, core_seconds=1)
    store.put(cell, {"loss": [9.0]}, core_seconds=9)
    assert len(store.rows(cell.key)) == 2
    assert store.cost(cell.key) == 1


def test_the_key_follows_the_content() -> None:
    cell = make_cell()
    assert cell.key == make_cell().key
    changes = [
        {"values": (0.01,)},
        {"seeds": (1,)},
        {"corpus_fingerprint": "abd"},
        {"train": replace(TRAIN, steps=11)},
        {"model": replace(MODEL, depth=2)},
        {"base": HyperParameters(eps=1e-7)},
        {"measurement": "coordinates"},
        {"steps": (1,)},
        {"device": "cuda"},
        {"prescription": cell.prescription.with_factors(next(iter(cell.prescription.factors)), lr=2.0)},
    ]
    keys = {make_cell(**change).key for change in changes}
    assert len(keys) == len(changes)
    assert cell.key not in keys


def test_the_key_is_the_same_in_another_process() -> None:
    code = "import runpy, sys; m = runpy.run_path(sys.argv[1]); print(m['make_cell']().key)"
    out = subprocess.run(
        [sys.executable, "-c", code, __file__],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert out.stdout.strip() == make_cell().key


def test_no_trace_of_a_write_that_was_killed(tmp_path: Path) -> None:
    """Killed between writing and moving: the record is absent, and the next attempt succeeds."""
    code = (
        "import os, sys, pathlib\n"
        "from mue_check.records.files import write_json\n"
        "pathlib.Path.replace = lambda self, target: os._exit(9)\n"
        "write_json(pathlib.Path(sys.argv[1]), {'a': 1})\n"
    )
    path = tmp_path / "cells" / "x.json"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(path)], env=env, check=False).returncode == 9
    assert not path.exists()
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}


def test_damaged_and_foreign_records_are_named(store: Store) -> None:
    cell = make_cell()
    path = store.root / "cells" / f"{cell.key}.json"
    path.write_text('{"cell": ')
    with pytest.raises(StoreError, match="is no JSON: remove it"):
        store.rows(cell.key)
    path.write_text('{"cell": {"schema": 99}, "columns": {}}')
    with pytest.raises(StoreError, match="has schema 99"):
        store.rows(cell.key)
    path.write_text("[]")
    with pytest.raises(StoreError, match="no JSON object"):
        store.rows(cell.key)
    with pytest.raises(StoreError, match="cannot read"):
        store.rows("absent")


def test_columns_of_unequal_length_are_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="unequal length"):
        store.put(make_cell(), {"a": [1.0], "b": []}, core_seconds=0)
    assert not store.has(make_cell())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "study").prepare()


def test_the_precision_is_part_of_a_cell_unless_it_is_float32() -> None:
    assert "precision" not in make_cell().content
    assert len({make_cell(precision=precision).key for precision in ("fp32", "tf32", "bf16")}) == 3
