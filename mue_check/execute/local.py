"""Measure the cells that are not stored yet, while other processes may do the same in the same study."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from filelock import Timeout

from mue_check.errors import StoreError
from mue_check.execute.batches import Batch, Measured, make_batches, measure
from mue_check.records import AnyCell, Cell, Store
from mue_check.records.files import reason_of
from mue_check.records.journal import at_work

_POLL_SECONDS = 0.2
C = TypeVar("C", bound=AnyCell)

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
    """Measure cells of the reference models until all are stored."""
    executor = executor or _in_use
    ensure_by(cells, store, make_batches, executor, at_once=executor is not here)


def ensure_by(
    cells: Iterable[C],
    store: Store,
    batches: Callable[[Iterable[C]], list[tuple[C, ...]]],
    executor: Callable[[Sequence[tuple[C, ...]]], Iterable[tuple[tuple[C, ...], list[Measured]]]],
    *,
    at_once: bool,
) -> None:
    """Measure cells until all are stored, skipping those that another process is measuring.

    If that process dies, its locks are free again and the cells are measured here. ``batches`` puts cells together
    for the ``executor``, which gets all of them ``at_once``, or one batch at a time: other processes then share them.
    """
    pending = _missing({cell.key: cell for cell in cells}.values(), store)
    while pending:
        measured = 0
        for cells_now in [pending] if at_once else batches(pending):
            with _claimed(cells_now, store) as mine, at_work(store.root, mine):
                for batch, found in executor(batches(mine)):
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


def _missing(cells: Iterable[C], store: Store) -> list[C]:
    return [cell for cell in cells if not store.has(cell)]


@contextmanager
def _claimed(cells: Iterable[C], store: Store) -> Iterator[list[C]]:
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
