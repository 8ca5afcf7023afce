"""A measurement: a function from a cell to rows, and what it takes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mue_check.data import Data
from mue_check.records import Cell, Columns

Row = Mapping[str, float | int | str]


@dataclass(frozen=True, kw_only=True)
class Passes:
    """What measuring a cell takes, from which ``cost`` predicts its time.

    ``steps`` of training; ``evaluations`` of the held-out part; ``probes``: forward passes of PROBE_EXAMPLES;
    ``updates``: passes over all parameters; ``noise``: for each run, gradients of CLONES batches.
    """

    steps: int = 0
    evaluations: int = 0
    probes: int = 0
    updates: int = 0
    noise: int = 0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """``by_run``: each row names the seed of its run, so that cells which differ in seeds can share a stack."""

    measure: Callable[[Cell, Data], Columns]
    passes: Callable[[Cell], Passes]
    by_run: bool = True

    def __call__(self, cell: Cell, data: Data) -> Columns:
        """The columns of a cell."""
        return self.measure(cell, data)


def by_columns(rows: Iterable[Row]) -> Columns:
    """Rows with the same names, as one list for each name."""
    columns: dict[str, list[float | int | str]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns
