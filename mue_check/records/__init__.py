"""Measured cells, their content hashes, and the store that keeps them."""

from mue_check.records.cell import Cell
from mue_check.records.store import Columns, Store

__all__ = ["Cell", "Columns", "Store"]
