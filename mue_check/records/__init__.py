"""Measured cells, their content hashes, and the store that keeps them."""

from mue_check.records.cell import AnyCell, Cell
from mue_check.records.record import Environment
from mue_check.records.store import Store
from mue_check.records.tables import Columns

__all__ = ["AnyCell", "Cell", "Columns", "Environment", "Store"]
