"""What was measured: cells, their content hash, and the store they are kept in."""

from mue_check.records.cell import Cell
from mue_check.records.store import Columns, Store

__all__ = ["Cell", "Columns", "Store"]
