"""Measure what is not stored yet, beside other processes that do the same on the same study."""

import time
from collections.abc import Sequence

from filelock import Timeout

from mue_check.data import load_corpus
from mue_check.execute.process import prepare_process
from mue_check.measure import MEASUREMENTS
from mue_check.records import Cell, Store

_POLL_SECONDS = 0.2


def ensure(cells: Sequence[Cell], store: Store) -> None:
    """Return when every cell is stored; measure those that no other process is measuring.

    A cell that another process holds is left to it while there is other work. Should that process die,
    its lock is free again and the cell is measured here.
    """
    pending = [cell for cell in {cell.key: cell for cell in cells}.values() if not store.has(cell)]
    while pending:
        waiting = []
        for cell in pending:
            try:
                with store.lock(cell).acquire(blocking=False):
                    if not store.has(cell):
                        _measure(cell, store)
            except Timeout:
                waiting.append(cell)
        if len(waiting) == len(pending):
            time.sleep(_POLL_SECONDS)
        pending = [cell for cell in waiting if not store.has(cell)]


def _measure(cell: Cell, store: Store) -> None:
    prepare_process()
    corpus = load_corpus(cell.corpus)
    began = time.process_time()
    columns = MEASUREMENTS[cell.measurement](cell, corpus)
    store.put(cell, columns, core_seconds=time.process_time() - began)
