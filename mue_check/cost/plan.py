"""The plan of a run of the suites: what each axis and question costs, and all of them together."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mue_check.cost.calibration import Calibration
from mue_check.cost.dry_run import Asked, Collected, collect
from mue_check.cost.work import Work, batch_work


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question of one axis. A cell is counted where it is first asked for, and where it is stored it is free.

    ``steps`` are summed over runs. ``seconds`` of one core, or of a GPU; None where nothing is known of the device.
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
    """What a command would do: ``arguments`` are pytest's, ``by_test`` the predicted seconds of each test."""

    arguments: tuple[str, ...]
    collected: Collected
    rows: tuple[Row, ...]
    by_test: tuple[float, ...] | None
    workers: int

    @property
    def total(self) -> Row:
        """All rows together."""
        return _sum("total", "", self.rows)

    @property
    def wall_seconds(self) -> float | None:
        """Predicted time on all workers, each of which takes the next longest test when it is free."""
        if self.by_test is None:
            return None
        busy = [0.0] * self.workers
        for seconds in sorted(self.by_test, reverse=True):
            heapq.heapreplace(busy, busy[0] + seconds)
        return max(busy)


def make_plan(arguments: Sequence[str], calibration: Calibration | None, workers: int) -> Plan:
    """The plan of ``pytest ARGUMENTS``; without a calibration its times stay open."""
    return price(collect(arguments), arguments, calibration, workers)


def price(collected: Collected, arguments: Sequence[str], calibration: Calibration | None, workers: int) -> Plan:
    """The plan of what ``arguments`` have collected."""
    rows: dict[tuple[str, str], list[Row]] = {}
    by_test = []
    axes = (*collected.settings.axes, "router")
    for asked in collected.asked:
        row = _row(asked, calibration)
        rows.setdefault((row.axis, row.question), []).append(row)
        by_test.append(row.seconds or 0.0)
    return Plan(
        arguments=tuple(arguments),
        collected=collected,
        rows=tuple(_sum(*key, rows[key]) for key in sorted(rows, key=lambda key: (axes.index(key[0]), key[1]))),
        by_test=tuple(by_test) if calibration else None,
        workers=workers,
    )


def _row(asked: Asked, calibration: Calibration | None) -> Row:
    work = sum(map(batch_work, asked.wanted.batches), Work())
    cells = [cell for batch in asked.wanted.batches for cell in batch]
    return Row(
        axis=asked.axis,
        question=asked.question,
        tests=1,
        cells=len(cells),
        stored=asked.wanted.stored,
        runs=sum(cell.runs for cell in cells),
        steps=round(work.run_steps),
        flop=work.flop,
        seconds=calibration.seconds(work) if calibration else None,
    )


def _sum(axis: str, question: str, rows: Iterable[Row]) -> Row:
    total = Row(axis=axis, question=question)
    for row in rows:
        seconds = None if row.seconds is None else (total.seconds or 0.0) + row.seconds
        total = replace(
            total,
            **{name: getattr(total, name) + getattr(row, name) for name in _COUNTED},
            seconds=seconds,
        )
    return total


_COUNTED = ("tests", "cells", "stored", "runs", "steps", "flop")
