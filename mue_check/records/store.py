"""An append-only store of measured cells: one file per cell, named by its key and written atomically.

Folders: ``cells/<key>.json`` holds the numbers and where they were measured, ``costs/<key>.json`` the time they took
(kept separately because it varies between runs and the numbers do not), ``comparisons/`` the questions, ``locks/`` and
``logs/`` (``records.journal``). Each file of the first three carries a digest (``records.files``).
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from mue_check.errors import StoreError
from mue_check.records.cell import AnyCell
from mue_check.records.files import (
    UNUSABLE,
    open_folder,
    read_record,
    reason_of,
    remove_leftovers,
    write_atomic,
    write_record,
)
from mue_check.records.record import Environment, Record, read_cell, record_of, require_key
from mue_check.records.tables import Columns
from mue_check.records.typed import from_json


@dataclass(frozen=True, kw_only=True)
class _Cost:
    core_seconds: float
    runs: int
    stacks: int = 1


class Store:
    """The records of one study folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, Record] = {}

    def prepare(self) -> None:
        """Make the folders, and remove what killed writers left. StoreError if they cannot be written."""
        try:
            for name in ("cells", "costs", "comparisons", "locks"):
                with open_folder(self.root / name, self.root):
                    pass
            remove_leftovers(self.root)
            write_atomic(probe := self.root / "locks" / "probe", b"", root=self.root)
            probe.unlink(missing_ok=True)
        except UNUSABLE as error:
            raise StoreError(f"study folder {str(self.root)!r} cannot be written: {reason_of(error)}") from None

    def has(self, cell: AnyCell) -> bool:
        """Whether the cell is stored."""
        return self.path(cell.key).exists()

    def put(
        self,
        cell: AnyCell,
        columns: Columns,
        *,
        core_seconds: float,
        stacks: int = 1,
        environment: Environment | None = None,
    ) -> None:
        """Store a measured cell, unless it is stored already. The caller holds its lock.

        ``stacks`` is greater than 1 if memory did not hold all runs at once. StoreError if the columns are not those of
        the cell.
        """
        if self.has(cell):
            return
        record = record_of(cell, columns, environment)
        cost: dict[str, object] = {"core_seconds": core_seconds, "runs": cell.runs, "stacks": stacks}
        write_record(self._cost_path(cell.key), cost, root=self.root, alone=True)
        write_record(self.path(cell.key), record, root=self.root, alone=True)

    def read(self, key: str) -> Record:
        """A stored cell, read once. StoreError names a file that was changed, copied or damaged."""
        if key not in self._read:
            self._read[key] = read_cell(self.path(key))
        return self._read[key]

    def rows(self, key: str) -> pd.DataFrame:
        """The cell's table. Numbers that were not finite are read as NaN."""
        return self.read(key).rows

    def cost(self, key: str) -> float:
        """Core-seconds that the cell took, or 0 if they were not stored."""
        path = self._cost_path(key)
        return from_json(_Cost, read_record(path), f"cost {str(path)!r}").core_seconds if path.exists() else 0.0

    def lock(self, cell: AnyCell) -> FileLock:
        """The lock to hold while measuring the cell. The system releases it if the holder dies."""
        path = self.root / "locks" / f"{cell.key}.lock"
        if path.is_symlink() or path.parent.is_symlink():  # opening it would empty the file that it points at
            raise StoreError(f"cannot lock {str(path)!r}: it is a link, and links in a study are not followed")
        return FileLock(path)

    def path(self, key: str) -> Path:
        """The file of a cell."""
        return self.root / "cells" / f"{require_key(key)}.json"

    def _cost_path(self, key: str) -> Path:
        return self.root / "costs" / f"{require_key(key)}.json"
