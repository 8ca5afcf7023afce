import hashlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mue_check import HyperParameters, StoreError
from mue_check.records import Environment, Store
from mue_check.records.cell import content_key
from mue_check.records.files import read_record, sealed
from tests.studies import MODEL, TRAIN, make_cell, new_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "study")


COLUMNS = {"seed": [0, 0], "value": [0.01, 0.02], "initial": [4.0, 4.0], "loss": [1 / 3, math.nan]}


def test_numbers_come_back_to_the_last_bit(store: Store) -> None:
    cell = make_cell()
    assert not store.has(cell)
    store.put(cell, COLUMNS, core_seconds=2.5)
    assert store.has(cell)
    rows = store.rows(cell.key)
    assert rows["loss"][0] == 1 / 3
    assert math.isnan(rows["loss"][1])
    assert rows["seed"].dtype == int
    assert store.cost(cell.key) == 2.5


def test_a_column_with_nothing_finite_is_still_numbers(store: Store) -> None:
    store.put(make_cell(), {**COLUMNS, "loss": [math.inf, -math.inf]}, core_seconds=0)
    assert store.rows(make_cell().key)["loss"].isna().all()
    assert store.rows(make_cell().key)["loss"].dtype == float


def test_what_is_stored_stays(store: Store) -> None:
    cell = make_cell()
    store.put(cell, COLUMNS, core_seconds=1)
    store.put(cell, {**COLUMNS, "loss": [9.0, 9.0]}, core_seconds=9)
    assert store.rows(cell.key)["loss"][0] == 1 / 3
    assert store.cost(cell.key) == 1


def test_a_cell_says_where_it_was_measured_and_its_key_does_not_depend_on_that(store: Store) -> None:
    cell, key = make_cell(), make_cell().key
    here = Environment(mue_check="1", torch="2", device="cpu", processor="x")
    store.put(cell, COLUMNS, core_seconds=1, environment=here)
    assert store.read(key).environment == here
    assert store.read(key).cell.described == "d=32,L=1,H=32,B=64,T=10"


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
    code = "from tests.studies import make_cell; print(make_cell().key)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert out.stdout.strip() == make_cell().key


def test_columns_that_are_not_the_cells_are_refused(store: Store) -> None:
    for columns, says in (
        ({**COLUMNS, "loss": [1.0]}, "columns of unequal length"),
        ({"loss": [1.0, 1.0]}, "has the columns loss: seed, value, initial, loss are needed"),
        ({**COLUMNS, "seed": [1, 1]}, "rows of other values or seeds"),
    ):
        with pytest.raises(StoreError, match=says):
            store.put(make_cell(), columns, core_seconds=0)
    with pytest.raises(StoreError, match="has the measurement 'guess': this version knows loss_grid, "):
        store.put(make_cell(measurement="guess"), COLUMNS, core_seconds=0)
    assert not list((store.root / "cells").iterdir())


def record(store: Store) -> tuple[Path, dict[str, Any]]:
    """The file of a stored cell, and what it contains."""
    store.put(make_cell(), COLUMNS, core_seconds=1)
    path = store.path(make_cell().key)
    return path, read_record(path)


def refused(store: Store, key: str) -> str:
    """What a fresh reader says of a record: one line that names the file."""
    with pytest.raises(StoreError) as caught:
        Store(store.root).rows(key)
    (line,) = str(caught.value).splitlines()
    assert f"{key}.json" in line
    return line


@pytest.mark.parametrize(("old", "new"), [("0.3333333333333333", "0.3333333333333334"), ("null", "3.5"), ('"', "'")])
def test_a_record_that_was_edited_is_refused(store: Store, old: str, new: str) -> None:
    path, _ = record(store)
    path.write_text(path.read_text().replace(old, new))
    assert re.search(
        "was changed after it was stored|is no JSON|does not begin with a digest", refused(store, path.stem)
    )


def test_a_record_of_an_earlier_version_is_refused(store: Store) -> None:
    path, value = record(store)
    path.write_text(json.dumps(value))
    assert "stored by version 0.3 or earlier; use a new study folder" in refused(store, path.stem)


def test_a_record_copied_over_another_is_refused(store: Store) -> None:
    path, _ = record(store)
    other = store.path(make_cell(seeds=(1,)).key)
    other.write_bytes(path.read_bytes())
    assert f"has the content of {path.stem}" in refused(store, other.stem)


@pytest.mark.parametrize("field", [{"measuring": 1}, {"device": "cuda"}, {"measurement": "guess"}])
def test_content_is_held_against_the_key(store: Store, field: dict[str, object]) -> None:
    path, changed = record(store)
    changed["cell"].update(field)
    path.write_bytes(sealed(changed))
    assert "has the content of " in refused(store, path.stem)


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("cell", {"schema": 99}, "has schema 99"),
        ("cell", {"measurement": "guess"}, "has the measurement 'guess': this version knows loss_grid"),
        ("cell", {"measuring": 99}, "has measuring version 99, this version reads up to"),
        ("cell", {"measuring": "3"}, ".cell.measuring is '3': a whole number is needed"),
        ("cell", {"device": "abacus"}, ".cell.device is 'abacus': 'cpu' or 'cuda' is needed"),
        ("cell", {"seeds": [True]}, ".cell.seeds[0] is True: a whole number is needed"),
        ("cell", {"knob": 3}, ".cell.knob is 3: 'lr' or 'weight_decay' or 'init_std' or 'lr:embedding'"),
        ("columns", {"loss": ["0.3", "0.4"]}, ".columns.loss[0] is '0.3': a finite number, or null"),
        ("columns", {"loss": [True, 1.0]}, ".columns.loss[0] is True: a finite number, or null"),
        ("columns", {"loss": [1.0]}, "columns of unequal length"),
        ("columns", {"loss": 3}, ".columns.loss is 3: a list is needed"),
        ("columns", {"loss": [[1.0], [2.0]]}, ".columns.loss[0] is [1.0]: a finite number"),
        ("columns", {"loss": [10**400, 1]}, ".columns.loss has a number that is too large"),
        ("columns", {"seed": [0.0, 0.0]}, ".columns.seed[0] is 0.0: a whole number is needed"),
        ("columns", {"seed": [10**30, 0]}, ".columns.seed has a number that is too large"),
        ("columns", {"seed": [0, 1]}, "rows of other values or seeds"),
        ("columns", {"value": [0.01, None]}, "rows of other values or seeds"),
        ("columns", {"more": [1.0, 2.0]}, "has the columns "),
    ],
)
def test_a_record_under_its_own_key_is_read_strictly(
    store: Store, part: str, change: dict[str, object], says: str
) -> None:
    _, changed = record(store)
    changed[part].update(change)
    path = store.path(content_key(changed["cell"]))
    path.write_bytes(sealed(changed))
    assert says in refused(store, path.stem)


def test_infinity_in_a_column_is_refused(store: Store) -> None:
    path, changed = record(store)
    changed["columns"]["loss"][1] = 12345.0
    rest = sealed(changed).partition(b'",\n')[2].replace(b"12345.0", b"1e999")
    path.write_bytes(b'{\n "digest": "%s",\n' % hashlib.sha256(rest).hexdigest().encode() + rest)
    assert ".columns.loss is inf: a finite number" in refused(store, path.stem)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"cell": ', "is no JSON: remove it"),
        ("[" * 100_000, "is no JSON: remove it"),
        ('{"cell": NaN}', "is no JSON: remove it"),
        ("[]", "no JSON object"),
    ],
)
def test_damaged_records_are_named(store: Store, text: str, says: str) -> None:
    path, _ = record(store)
    path.write_text(text)
    assert says in refused(store, path.stem)


def test_what_is_absent_or_no_key_is_named(store: Store) -> None:
    assert "cannot read" in refused(store, "0" * 20)
    with pytest.raises(StoreError, match=r"'\.\./\.\./etc/passwd' is no key of a cell"):
        store.rows("../../etc/passwd")
    with pytest.raises(StoreError, match="is no key of a cell") as caught:
        store.rows("0" * 5000)
    assert len(str(caught.value)) < 200


def test_a_cost_is_read_strictly(store: Store) -> None:
    path, _ = record(store)
    cost = store.root / "costs" / path.name
    cost.write_bytes(sealed({"core_seconds": "1", "runs": 2}))
    with pytest.raises(StoreError, match=r"costs/.*\.core_seconds is '1': a finite number is needed"):
        store.cost(path.stem)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "study").prepare()


def test_the_precision_is_part_of_a_cell_unless_it_is_float32() -> None:
    assert "precision" not in make_cell().content
    assert len({make_cell(precision=precision).key for precision in ("fp32", "tf32", "bf16")}) == 3
