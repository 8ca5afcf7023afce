"""The plan of a run of the suites: the cost of each question of each axis, and the total."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mue_check.cost.calibration import Calibration
from mue_check.cost.dry_run import DryRun, DryTest, dry_run
from mue_check.cost.work import Work, batch_work


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question of one axis. A cell counts where it is first needed, and costs nothing if it is stored.

    ``steps`` are summed over runs. ``seconds`` are those of one core or of a GPU; None without a calibration.
    """

    axis: str
    question: str
    tests: int = 0
    cells: int = 0
    stored: int = 0
    runs: int = 0
    steps: int = 0
    flop: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of ``pytest ARGUMENTS``. ``by_test`` are the predicted seconds of each test."""

    arguments: tuple[str, ...]
    run: DryRun
    rows: tuple[Row, ...]
    by_test: tuple[float, ...] | None
    workers: int

    @property
    def total(self) -> Row:
        """All rows together."""
        return _sum("total", "", self.rows)

    @property
    def on_cpu(self) -> bool:
        """Whether the work is that of cores rather than GPUs."""
        return self.run.settings.tier.device == "cpu"

    @property
    def wall_seconds(self) -> float | None:
        """Predicted time on all workers, when each free worker takes the longest test left."""
        if self.by_test is None:
            return None
        busy = [0.0] * self.workers
        for seconds in sorted(self.by_test, reverse=True):
            heapq.heapreplace(busy, busy[0] + seconds)
        return max(busy)


def make_plan(arguments: Sequence[str], calibration: Calibration | None, workers: int) -> Plan:
    """The plan of ``mue_check suite ARGUMENTS``, without times if there is no calibration."""
    return price(dry_run(arguments), arguments, calibration, workers)


def price(run: DryRun, arguments: Sequence[str], calibration: Calibration | None, workers: int) -> Plan:
    """The plan of a dry run with ``arguments``."""
    rows = [_row(test, calibration) for test in run.tests]
    axes = (*run.settings.axes, "router")
    keys = sorted({(row.axis, row.question) for row in rows}, key=lambda key: (axes.index(key[0]), key[1]))
    return Plan(
        arguments=tuple(arguments),
        run=run,
        rows=tuple(_sum(*key, [row for row in rows if (row.axis, row.question) == key]) for key in keys),
        by_test=tuple(row.seconds or 0.0 for row in rows) if calibration else None,
        workers=workers,
    )


def _row(test: DryTest, calibration: Calibration | None) -> Row:
    work = sum(map(batch_work, test.new.batches), Work())
    cells = [cell for batch in test.new.batches for cell in batch]
    return Row(
        axis=test.axis,
        question=test.question,
        tests=1,
        cells=len(cells),
        stored=test.new.stored,
        runs=sum(cell.runs for cell in cells),
        steps=round(work.run_steps),
        flop=work.flop,
        seconds=calibration.seconds(work) if calibration else None,
    )


def _sum(axis: str, question: str, rows: Iterable[Row]) -> Row:
    rows = list(rows)
    counted = ("tests", "cells", "stored", "runs", "steps", "flop")
    sums = {name: sum(getattr(row, name) for row in rows) for name in counted}
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return Row(axis=axis, question=question, **sums, seconds=sum(seconds) if seconds else None)
