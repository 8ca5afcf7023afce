"""An append-only store of measured cells: one file per cell, named by its content, written whole or not at all.

Folder layout: ``cells/<key>.json`` the numbers, ``costs/<key>.json`` what they cost (apart, since it
differs from run to run and the numbers do not), ``comparisons/`` what was asked of them, ``locks/``,
``logs/`` what each process was at (``records.journal``).
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
        """Make the folders, and fail now, in one line, when they cannot be written."""
        try:
            for name in ("cells", "costs", "comparisons", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"study folder {str(self.root)!r} cannot be written: {error.strerror}") from None
        probe = self.root / "locks" / "probe"
        write_json(probe, {})
        probe.unlink(missing_ok=True)

    def has(self, cell: Cell) -> bool:
        """Whether the cell was measured."""
        return self._path(cell.key).exists()

    def put(self, cell: Cell, columns: Columns, *, core_seconds: float, stacks: int = 1) -> None:
        """Store a measured cell, under its lock; one that is there already stays as it is.

        ``stacks`` says how many it took: more than one where the memory did not hold all runs.
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
        """The cell's table; numbers that were not finite come back as NaN."""
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
        """Core-seconds that the cell took; 0 when that was not written down."""
        path = self.root / "costs" / f"{key}.json"
        value = read_json(path).get("core_seconds") if path.exists() else 0.0
        return float(value) if isinstance(value, int | float) else 0.0

    def lock(self, cell: Cell) -> FileLock:
        """The lock under which the cell is measured; the system frees it when its holder dies."""
        return FileLock(self.root / "locks" / f"{cell.key}.lock")

    def _path(self, key: str) -> Path:
        return self.root / "cells" / f"{key}.json"


def _plain(value: float | int | str) -> float | int | str | None:
    """JSON knows neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
