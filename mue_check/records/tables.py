"""The table of each measurement: its columns and their types, and the check that a table is that of its cell."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mue_check.errors import StoreError
from mue_check.records.typed import refuse

Columns = Mapping[str, Sequence[float | int | str]]
"""A table by columns of equal length."""

_RUN: Mapping[str, type] = {"seed": int, "value": float}
_CURVE: Mapping[str, type] = {**_RUN, "step": int, "loss": float}
TABLES: Mapping[str, Mapping[str, type]] = {
    "loss_grid": {**_RUN, "initial": float, "loss": float},
    "coordinates": {**_RUN, "step": int, "coordinate": str, "rms": float, "change": float},
    "early_curve": _CURVE,
    "learning_curve": _CURVE,
    "optimizer": {"role": str, "parameter": str, "numbers": int}
    | dict.fromkeys(("init_std", "lr", "weight_decay", "eps", "beta1", "beta2"), float),
    "routing": {**_RUN, "layer": int, "expert": int} | dict.fromkeys(("load", "weight_sum", "variance_factor"), float),
    "gradient_noise": {**_RUN, "step": int, "load": str, "layer": int, "kind": str, "expert": int}
    | {"tokens": float, "numbers": int}
    | dict.fromkeys(("noise", "signal", "adam_noise", "adam_signal"), float),
    "samples": {**_RUN, "sample": int, "frame": int, "height": int, "pixels": str},
}
"""Columns by measurement. Every table with a seed has the same number of rows for each run."""
_ADDED: Mapping[str, Mapping[str, type]] = {"routing": {"weight_sum_low": float, "weight_sum_high": float}}
"""Columns that records of earlier versions do not have: a table has all of them or none."""

_STORED: Mapping[type, frozenset[type]] = {
    int: frozenset({int}),
    float: frozenset({float, int, type(None)}),
    str: frozenset({str}),
}
_NEEDED = {int: "a whole number", float: "a finite number, or null for one that is not,", str: "text"}


def plain_columns(columns: Columns) -> dict[str, list[float | int | str | None]]:
    """As JSON: null for NaN and infinity, which JSON does not have."""
    return {name: [_plain(value) for value in values] for name, values in columns.items()}


def _plain(value: float | int | str) -> float | int | str | None:
    if not isinstance(value, float):
        return value
    return float(value) if math.isfinite(value) else None  # numpy's floats become Python's


def read_table(
    columns: object, measurement: str, values: Sequence[float], seeds: Sequence[int], where: str
) -> pd.DataFrame:
    """The table in plain columns, with NaN for null. StoreError unless it is one of these values and seeds."""
    table = TABLES.get(measurement)
    if table is None:
        raise StoreError(f"{where} has the measurement {measurement!r}: this version knows {', '.join(TABLES)}")
    if not isinstance(columns, dict):
        refuse(columns, f"{where}.columns", "an object")
    added = _ADDED.get(measurement, {})
    if added.keys() & columns.keys():
        table = {**table, **added}
    if set(columns) != set(table):
        raise StoreError(f"{where} has the columns {', '.join(columns)}: {', '.join(table)} are needed")
    read = {name: _read_column(columns[name], kind, f"{where}.columns.{name}") for name, kind in table.items()}
    lengths = {name: len(column) for name, column in read.items()}
    if len(set(lengths.values())) > 1:
        raise StoreError(f"{where} has columns of unequal length: {lengths}")
    if "seed" in table:
        rows = Counter(zip(columns["seed"], columns["value"], strict=True))
        if set(rows) != {(seed, value) for seed in seeds for value in values} or len(set(rows.values())) != 1:
            raise StoreError(f"{where} has rows of other values or seeds than its cell")
    # in the order of the file, which is that of their names
    return pd.DataFrame({name: read[name] for name in columns})


def _read_column(column: object, kind: type, where: str) -> Any:
    if not isinstance(column, list):
        refuse(column, where, "a list")
    if not set(map(type, column)) <= _STORED[kind]:
        at = next(at for at, value in enumerate(column) if type(value) not in _STORED[kind])
        refuse(column[at], f"{where}[{at}]", _NEEDED[kind])
    if kind is str:
        return column
    try:
        read = np.array(column, dtype=np.int64 if kind is int else np.float64)  # None becomes NaN
    except OverflowError:
        raise StoreError(f"{where} has a number that is too large") from None
    if kind is float and np.isinf(read).any():
        refuse(float(read[np.isinf(read)][0]), where, _NEEDED[kind])
    return read
