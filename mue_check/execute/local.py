"""Measure the cells that are not stored yet, while other processes may do the same in the same study."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from filelock import Timeout

from mue_check.errors import StoreError
from mue_check.execute.batches import Batch, Measured, make_batches, measure
from mue_check.records import Cell, Store
from mue_check.records.files import reason_of
from mue_check.records.journal import at_work

_POLL_SECONDS = 0.2

Executor = Callable[[Sequence[Batch]], Iterable[tuple[Batch, list[Measured]]]]
"""Measures batches in any order and place, and yields each when it is done."""


def here(batches: Sequence[Batch]) -> Iterator[tuple[Batch, list[Measured]]]:
    """The executor of one process: one batch after another."""
    for batch in batches:
        yield batch, measure(batch)


_in_use: Executor = here


def use(executor: Executor) -> None:
    """Make this the default executor of this process."""
    global _in_use
    _in_use = executor


def ensure(cells: Sequence[Cell], store: Store, executor: Executor | None = None) -> None:
    """Measure cells until all are stored, skipping those that another process is measuring.

    If that process dies, its locks are free again and the cells are measured here.
    """
    executor = executor or _in_use
    pending = _missing({cell.key: cell for cell in cells}.values(), store)
    while pending:
        measured = 0
        # this process does one batch at a time, and leaves the rest to other processes
        for cells_now in make_batches(pending) if executor is here else [pending]:
            with _claimed(cells_now, store) as mine, at_work(store.root, mine):
                for batch, found in executor(make_batches(mine)):
                    for cell, each in zip(batch, found, strict=True):
                        store.put(
                            cell,
                            each.columns,
                            core_seconds=each.core_seconds,
                            stacks=each.stacks,
                            environment=each.environment,
                        )
                    measured += len(batch)
        pending = _missing(pending, store)
        if pending and not measured:
            time.sleep(_POLL_SECONDS)


def _missing(cells: Iterable[Cell], store: Store) -> list[Cell]:
    return [cell for cell in cells if not store.has(cell)]


@contextmanager
def _claimed(cells: Iterable[Cell], store: Store) -> Iterator[list[Cell]]:
    """Lock the cells that are missing and that no other process has locked."""
    with ExitStack() as locks:
        mine = []
        for cell in cells:
            try:
                lock = locks.enter_context(store.lock(cell).acquire(blocking=False))
            except Timeout:
                continue
            except OSError as error:
                raise StoreError(f"cannot lock {str(store.path(cell.key))!r}: {reason_of(error)}") from None
            if store.has(cell):
                lock.release()
            else:
                mine.append(cell)
        yield mine
