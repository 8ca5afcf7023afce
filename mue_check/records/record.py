"""A stored cell: what its file contains, and the check that content, key and numbers belong together."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from mue_check.errors import StoreError
from mue_check.precision import Precision
from mue_check.records.cell import MEASURING, SCHEMA, AnyCell, content_key, of_a_user
from mue_check.records.files import read_record
from mue_check.records.tables import Columns, plain_columns, read_table
from mue_check.records.typed import from_json
from mue_check.rules import Knob
from mue_check.spec import described

_KEY = re.compile("[0-9a-f]{20}")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a cell was measured: versions, the name of the GPU or "cpu", and the name of the processor."""

    mue_check: str
    torch: str
    device: str
    processor: str


@dataclass(frozen=True, kw_only=True)
class StoredCell:
    """``Cell.content`` as a file has it; older cells lack the fields with a default. Parts of type ``object`` are only
    compared."""

    schema: int
    measuring: int
    measurement: str
    model: Mapping[str, object]
    factors: Mapping[str, Mapping[str, float]]
    base: object
    train: Mapping[str, object]
    corpus: str
    knob: Knob
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    flaw: str
    loads: tuple[str, ...] = ()
    load_scaling: float = 0.0
    device: Literal["cpu", "cuda"]
    precision: Precision = "fp32"

    @property
    def described(self) -> str:
        """Its model and training, as the side of a comparison names them."""
        return of_a_user(self.model, self.train) or described(self.model, self.train)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A cell with its table. ``environment`` is None for records of version 0.3 and earlier."""

    cell: StoredCell
    rows: pd.DataFrame
    environment: Environment | None


@dataclass(frozen=True, kw_only=True)
class _File:
    cell: StoredCell
    label: str
    rule: str
    columns: object
    environment: Environment | None


def record_of(cell: AnyCell, columns: Columns, environment: Environment | None) -> dict[str, object]:
    """The record of a measured cell as plain JSON. StoreError if the columns are not those of the cell."""
    plain = plain_columns(columns)
    read_table(plain, cell.measurement, cell.values, cell.seeds, str(cell))
    return {
        "cell": cell.content,
        "label": str(cell),
        "rule": cell.rule,
        "columns": plain,
        "environment": None if environment is None else asdict(environment),
    }


def require_key(key: str) -> str:
    """The key itself. StoreError if it is not one, so that it never names a file elsewhere."""
    if not _KEY.fullmatch(key):
        shown = key if len(key) <= 40 else key[:37] + "..."
        raise StoreError(f"{shown!r} is no key of a cell: 20 hexadecimal digits are needed")
    return key


def read_cell(path: Path) -> Record:
    """The record in ``<key>.json``. StoreError unless its key is the hash of its content and the rows fit it."""
    raw, where = read_record(path), f"record {str(path)!r}"
    content = raw.get("cell")
    if not isinstance(content, dict):
        raise StoreError(f"{where} has no cell: remove it and run again")
    if content.get("schema") != SCHEMA:
        raise StoreError(
            f"{where} has schema {content.get('schema')!r}, this version reads {SCHEMA}: use a new study folder"
        )
    if (key := _key_of(content)) != path.stem:
        raise StoreError(f"{where} has the content of {key}: remove it and run again")
    file = from_json(_File, raw, where)
    if not 1 <= file.cell.measuring <= MEASURING:
        raise StoreError(f"{where} has measuring version {file.cell.measuring}, this version reads up to {MEASURING}")
    rows = read_table(file.columns, file.cell.measurement, file.cell.values, file.cell.seeds, where)
    return Record(cell=file.cell, rows=rows, environment=file.environment)


def _key_of(content: Mapping[str, object]) -> str:
    try:
        return content_key(content)
    except ValueError:  # a number like 1e999 is read as infinity
        return "no cell"
