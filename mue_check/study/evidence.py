"""Whether the cells of a comparison are those that its question needs."""

from dataclasses import replace

from mue_check.errors import StoreError
from mue_check.records import Store
from mue_check.records.record import StoredCell
from mue_check.study.comparison import Comparison, Side

_SHARED = ("corpus", "device", "precision", "measuring")
"""What all cells of a comparison have in common."""


def require_evidence(store: Store, comparison: Comparison, measurement: str) -> None:
    """StoreError, which names the file, unless the cells of each side are ``measurement`` of its model and knob.

    All cells of a comparison have one corpus, device, precision and measuring version, and those of a side differ in
    values and seeds only.
    """
    first = store.read(comparison.sides[0].cells[0]).cell
    for side in comparison.sides:
        arm = _arm(store.read(side.cells[0]).cell)
        for key in side.cells:
            cell = store.read(key).cell
            if problem := _mismatch(cell, side, comparison, measurement) or _difference(cell, first):
                raise StoreError(f"record {str(store.path(key))!r} {problem}")
            if _arm(cell) != arm:
                raise StoreError(f"record {str(store.path(key))!r} is of another arm than the first cell of its side")


def _arm(cell: StoredCell) -> StoredCell:
    return replace(cell, values=(), seeds=())


def _mismatch(cell: StoredCell, side: Side, comparison: Comparison, measurement: str) -> str:
    if cell.measurement != measurement:
        return f"has the measurement {cell.measurement}, and the question needs {measurement}"
    if cell.knob != comparison.knob:
        return f"sweeps {cell.knob}, and the question is about {comparison.knob}"
    if cell.described != side.model:
        return f"is of the model {cell.described}, and the side {side.label!r} is {side.model}"
    if min(cell.seeds, default=0) < side.first_seed:
        return f"has seeds below {side.first_seed}, the first of its side"
    return ""


def _difference(cell: StoredCell, first: StoredCell) -> str:
    for name in _SHARED:
        mine, others = getattr(cell, name), getattr(first, name)
        if mine != others:
            return f"has the {name} {mine}, and the comparison's first cell {others}"
    return ""
