"""Cells that train as one stack: which belong together, and how the numbers of each are told apart again."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mue_check.data import load_corpus
from mue_check.execute.process import prepare_process
from mue_check.measure import MEASUREMENTS
from mue_check.records import Cell, Columns

NUMBERS = 2**17
"""Numbers of one activation, [R, M, D], of a stack on a CPU: beyond that it leaves the cache (reports/bench)."""

Batch = tuple[Cell, ...]
"""Cells that are alike in all but their seeds."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The numbers of one cell, and its share of what its batch cost."""

    columns: Columns
    core_seconds: float


def make_batches(cells: Iterable[Cell]) -> list[Batch]:
    """Cells that differ in nothing but seeds side by side, as many as make a good stack."""
    batches: dict[str, list[list[Cell]]] = {}
    for cell in cells:
        alike = batches.setdefault(replace(cell, seeds=()).key, [[]])
        if alike[-1] and (cell.measurement not in PER_RUN or _runs([*alike[-1], cell]) > runs_of_a_stack(cell)):
            alike.append([])
        alike[-1].append(cell)
    return [tuple(batch) for alike in batches.values() for batch in alike]


PER_RUN = frozenset({"loss_grid", "coordinates", "early_curve", "learning_curve", "routing", "gradient_noise"})
"""Measurements whose rows name the seed that they are of; the others look at one run."""


def measure(batch: Batch) -> list[Measured]:
    """Train the cells of a batch as one stack: a run's numbers do not depend on its neighbours (a test)."""
    prepare_process()
    whole = replace(batch[0], seeds=tuple(seed for cell in batch for seed in cell.seeds))
    began = time.process_time()
    columns = MEASUREMENTS[whole.measurement](whole, load_corpus(whole.corpus))
    seconds = time.process_time() - began
    return [
        Measured(columns=_part(columns, cell) if len(batch) > 1 else columns, core_seconds=seconds * share)
        for cell, share in ((cell, len(cell.seeds) / len(whole.seeds)) for cell in batch)
    ]


def runs_of_a_stack(cell: Cell) -> int:
    """How many runs train best together."""
    return max(1, NUMBERS // (cell.train.tokens_per_step * cell.model.width))


def _runs(cells: Sequence[Cell]) -> int:
    return sum(len(cell.values) * len(cell.seeds) for cell in cells)


def _part(columns: Columns, cell: Cell) -> Columns:
    """The rows of a cell's own seeds."""
    own = [row for row, seed in enumerate(columns["seed"]) if seed in cell.seeds]
    return {name: [values[row] for row in own] for name, values in columns.items()}
