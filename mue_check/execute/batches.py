"""Batches of cells that train as one stack: which cells go together, and the numbers of each."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mue_check.data import load_data
from mue_check.execute.machine import environment
from mue_check.execute.memory import runs_of_a_stack
from mue_check.execute.process import prepare_process
from mue_check.measure import MEASUREMENTS
from mue_check.measure.stacks import stacks
from mue_check.records import Cell, Columns, Environment
from mue_check.training.out_of_memory import is_out_of_memory
from mue_check.user_code import no_exit

Batch = tuple[Cell, ...]
"""Cells that differ only in their seeds."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The numbers of one cell, where they were measured, its share of its batch's cost, and how many stacks that took.

    ``core_seconds`` are CPU seconds of this process, or elapsed seconds on a GPU.
    """

    columns: Columns
    environment: Environment
    core_seconds: float
    stacks: int = 1


def make_batches(cells: Iterable[Cell]) -> list[Batch]:
    """Put cells that differ only in their seeds together, up to the best size of a stack."""
    batches: dict[str, list[list[Cell]]] = {}
    for cell in cells:
        groups = batches.setdefault(replace(cell, seeds=()).key, [[]])
        by_run = MEASUREMENTS[cell.measurement].by_run
        if groups[-1] and not (by_run and _runs([*groups[-1], cell]) <= runs_of_a_stack(cell)):
            groups.append([])
        groups[-1].append(cell)
    return [tuple(batch) for groups in batches.values() for batch in groups]


def measure(batch: Batch) -> list[Measured]:
    """Train the cells of a batch as one stack. The numbers of a run do not depend on the others (tested)."""
    prepare_process()
    whole = replace(batch[0], seeds=tuple(seed for cell in batch for seed in cell.seeds))
    clock = time.process_time if whole.device == "cpu" else time.perf_counter
    began = clock()
    with no_exit():  # a user's router may exit in a forward or a backward pass
        found = _stack_by_stack(whole)
    seconds = clock() - began
    columns = {name: [value for part in found for value in part[name]] for name in found[0]}
    return [
        Measured(
            columns=_part(columns, cell) if len(batch) > 1 else columns,
            environment=environment(cell.device),
            core_seconds=seconds * len(cell.seeds) / len(whole.seeds),
            stacks=len(found),
        )
        for cell in batch
    ]


def _stack_by_stack(cell: Cell) -> list[Columns]:
    """The columns of each stack: one, unless memory does not hold all runs."""
    divisible = MEASUREMENTS[cell.measurement].by_run and cell.runs > 1
    if not divisible or _fits(cell):
        try:
            return [MEASUREMENTS[cell.measurement](cell, load_data(cell.corpus))]
        except (RuntimeError, MemoryError) as error:
            if not divisible or not is_out_of_memory(error):
                raise
    stacks().forget()  # outside the except block: the error's frames would hold the memory
    return [columns for half in _halves(cell) for columns in _stack_by_stack(half)]


def _fits(cell: Cell) -> bool:
    """Whether all runs fit the memory, if necessary after dropping captured stacks of other shapes."""
    if cell.device == "cpu" or stacks().holds(cell) or cell.runs <= runs_of_a_stack(cell):
        return True
    stacks().forget()
    return cell.runs <= runs_of_a_stack(cell)


def _halves(cell: Cell) -> tuple[Cell, Cell]:
    """Two cells with half of the seeds each, or half of the values if there is one seed."""
    if len(cell.seeds) > 1:
        middle = len(cell.seeds) // 2
        return replace(cell, seeds=cell.seeds[:middle]), replace(cell, seeds=cell.seeds[middle:])
    middle = len(cell.values) // 2
    return replace(cell, values=cell.values[:middle]), replace(cell, values=cell.values[middle:])


def _runs(cells: Sequence[Cell]) -> int:
    return sum(cell.runs for cell in cells)


def _part(columns: Columns, cell: Cell) -> Columns:
    """The rows of a cell's seeds."""
    own = [row for row, seed in enumerate(columns["seed"]) if seed in cell.seeds]
    return {name: [values[row] for row in own] for name, values in columns.items()}
