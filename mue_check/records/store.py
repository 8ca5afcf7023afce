"""An append-only store of measured cells: one file per cell, named by its key and written atomically.

Folders: ``cells/<key>.json`` holds the numbers, ``costs/<key>.json`` the time they took (kept separately because it
varies between runs and the numbers do not), ``comparisons/`` the questions, ``locks/`` and ``logs/``
(``records.journal``).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from filelock import FileLock

from mue_check.errors import StoreError
from mue_check.records.cell import SCHEMA, Cell
from mue_check.records.files import read_json, write_json

Columns = Mapping[str, Sequence[float | int | str]]
"""A table by columns of equal length."""


class Store:
    """The records of one study folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folders. StoreError if they cannot be written."""
        try:
            for name in ("cells", "costs", "comparisons", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"study folder {str(self.root)!r} cannot be written: {error.strerror}") from None
        probe = self.root / "locks" / "probe"
        write_json(probe, {})
        probe.unlink(missing_ok=True)

    def has(self, cell: Cell) -> bool:
        """Whether the cell is stored."""
        return self._path(cell.key).exists()

    def put(self, cell: Cell, columns: Columns, *, core_seconds: float, stacks: int = 1) -> None:
        """Store a measured cell, unless it is stored already. The caller holds its lock.

        ``stacks`` is greater than 1 if memory did not hold all runs at once.
        """
        if self.has(cell):
            return
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise StoreError(f"columns of unequal length for {cell}: {lengths}")
        cost = {"core_seconds": core_seconds, "runs": cell.runs, "stacks": stacks}
        write_json(self.root / "costs" / f"{cell.key}.json", cost, alone=True)
        plain = {name: [_plain(value) for value in values] for name, values in columns.items()}
        write_json(
            self._path(cell.key),
            {"cell": cell.content, "label": str(cell), "rule": cell.prescription.rule, "columns": plain},
            alone=True,
        )

    def rows(self, key: str) -> pd.DataFrame:
        """The cell's table. Numbers that were not finite are read as NaN."""
        record = read_json(self._path(key))
        cell, columns = record.get("cell"), record.get("columns")
        if not isinstance(cell, dict) or not isinstance(columns, dict):
            raise StoreError(f"{str(self._path(key))!r} is no record: remove it and run again")
        if cell.get("schema") != SCHEMA:
            raise StoreError(
                f"{str(self._path(key))!r} has schema {cell.get('schema')!r}, this version reads {SCHEMA}: "
                "use a new study folder"
            )
        return pd.DataFrame({name: [math.nan if v is None else v for v in values] for name, values in columns.items()})

    def cost(self, key: str) -> float:
        """Core-seconds that the cell took, or 0 if they were not stored."""
        path = self.root / "costs" / f"{key}.json"
        value = read_json(path).get("core_seconds") if path.exists() else 0.0
        return float(value) if isinstance(value, int | float) else 0.0

    def lock(self, cell: Cell) -> FileLock:
        """The lock to hold while measuring the cell. The system releases it if the holder dies."""
        return FileLock(self.root / "locks" / f"{cell.key}.lock")

    def _path(self, key: str) -> Path:
        return self.root / "cells" / f"{key}.json"


def _plain(value: float | int | str) -> float | int | str | None:
    """None for NaN and infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
