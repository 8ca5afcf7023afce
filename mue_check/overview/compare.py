"""Rules side by side, from one study or several: one row per question, one column per rule."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic

import numpy as np
import pandas as pd

from mue_check.errors import StoreError
from mue_check.judge.verdict import Verdict
from mue_check.questions.display import knob_name
from mue_check.questions.drift import DriftFinding, main_drifts
from mue_check.questions.question import F
from mue_check.questions.scales import ScalesFinding
from mue_check.questions.summary import Summary
from mue_check.report.format import NONE, in_words, interval_text, number_text
from mue_check.report.table import Cells, Table, make_table
from mue_check.study.comparison import Comparison, report_order


@dataclass(frozen=True, kw_only=True)
class Compared(Generic[F]):
    """One row: the same question under every rule. ``found`` has the finding by column, where it was measured."""

    comparison: Comparison
    found: dict[str, F]

    def first_with_the_cells_of(self, column: str) -> str:
        """The first column whose rule prescribes the same as that of ``column``; itself, if there is no other."""
        cells = [side.cells for side in self.found[column].comparison.sides]
        return next(name for name, f in self.found.items() if [s.cells for s in f.comparison.sides] == cells)


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """The drifts and laws of the studies, without controls.

    ``columns`` are rules, or ``study/rule`` where two studies share a rule. ``studies`` has the name and the summary of
    each column's study.
    """

    drifts: tuple[Compared[DriftFinding], ...]
    laws: tuple[Compared[ScalesFinding], ...]
    studies: dict[str, tuple[str, Summary]]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in their order."""
        return tuple(self.studies)

    @property
    def tables(self) -> tuple[Table, ...]:
        """The drifts, the laws where there are any, and how often each verdict occurs."""
        return (_drift_table(self), *_law_tables(self), _count_table(self))

    def numbers(self) -> pd.DataFrame:
        """Raw numbers, one line for each question and column."""
        return pd.DataFrame(
            [_numbers(d, name, *self.studies[name]) for row in self.drifts for name, d in row.found.items()]
        )


def compare_studies(roots: Sequence[Path], summarize: Callable[[Path], Summary]) -> SideBySide:
    """Judge the studies and set their drifts side by side. StoreError, one line, for a folder without drifts."""
    unique = {root.resolve(): root for root in roots}.values()
    summaries = [summarize(root) for root in unique]
    names = [summary.name for summary in summaries]
    if len(set(names)) < len(names):
        names = [str(root) for root in unique]
    rules = Counter(rule for summary in summaries for rule in {d.comparison.rule for d in main_drifts(summary)})
    studies: dict[str, tuple[str, Summary]] = {}
    drifts: dict[tuple[str, ...], Compared[DriftFinding]] = {}
    laws: dict[tuple[str, ...], Compared[ScalesFinding]] = {}
    for name, summary in zip(names, summaries, strict=True):
        found = main_drifts(summary)
        if not found:
            raise StoreError(f"study {name!r} has no drift to compare")
        columns = {rule: rule if count == 1 else f"{name}/{rule}" for rule, count in rules.items()}
        for d in found:
            c = d.comparison
            studies.setdefault(columns[c.rule], (name, summary))
            key = (c.ladder, d.side.label, c.corpus, c.knob, c.router)
            drifts.setdefault(key, Compared(comparison=c, found={})).found[columns[c.rule]] = d
        for each in summary.of(ScalesFinding):
            c = each.comparison
            if columns.get(c.rule) in studies and not c.is_control:
                row = laws.setdefault((c.ladder, c.corpus, c.router), Compared(comparison=c, found={}))
                row.found[columns[c.rule]] = each

    def order(row: Compared[DriftFinding] | Compared[ScalesFinding]) -> tuple[object, ...]:
        return report_order(row.comparison, summaries[0].axes)[:-2]  # without rule and name

    return SideBySide(
        drifts=tuple(sorted(drifts.values(), key=order)), laws=tuple(sorted(laws.values(), key=order)), studies=studies
    )


def _drift_table(sides: SideBySide) -> Table:
    rows = sides.drifts
    cells: dict[str, Callable[[Compared[DriftFinding]], str]] = {
        "axis": lambda row: in_words(row.comparison.ladder),
        "target": lambda row: row.comparison.sides[-1].label,
        "corpus": lambda row: row.comparison.corpus,
    }
    if any(row.comparison.knob != "lr" for row in rows):
        cells["value"] = lambda row: knob_name(row.comparison.knob)
    if len({row.comparison.router for row in rows}) > 1:
        cells["router"] = lambda row: row.comparison.router
    cells |= {name: partial(_drift_text, name) for name in sides.columns}
    return make_table("Drift of the optimum, regret, verdict", rows, cells)


def _drift_text(column: str, row: Compared[DriftFinding]) -> str:
    if column not in row.found:
        return NONE
    if (first := row.first_with_the_cells_of(column)) != column:
        return f"= {first}"
    drift = row.found[column].drift
    regret = [] if drift.reason is not None else [f"{drift.regret:.4f}"]
    return ", ".join([interval_text(drift.interval), *regret, drift.verdict.value])


def _law_tables(sides: SideBySide) -> list[Table]:
    """How many laws of scale each rule breaks on each ladder, and the first of them; empty without such questions."""

    def broken(column: str, row: Compared[ScalesFinding]) -> str:
        if column not in row.found:
            return NONE
        failed = [result for result in row.found[column].results if result.verdict is Verdict.FAIL]
        return f"{len(failed)}: {failed[0].law.name}" if failed else "0"

    cells: Cells[Compared[ScalesFinding]] = {
        "axis": lambda row: in_words(row.comparison.ladder),
        "corpus": lambda row: row.comparison.corpus,
        "laws": lambda row: str(len(next(iter(row.found.values())).results)),
        **{name: partial(broken, name) for name in sides.columns},
    }
    caption = "Laws of scale that fail, and the first of them"
    return [make_table(caption, sides.laws, cells, numeric=("laws",))] if sides.laws else []


def _count_table(sides: SideBySide) -> Table:
    """The verdicts of each column, and means over the rows that every column resolves."""
    known = [{name for name, d in row.found.items() if d.drift.reason is None} for row in sides.drifts]
    shared = [row for row, names in zip(sides.drifts, known, strict=True) if names == set(sides.columns)]

    def times(verdict: Verdict, column: str) -> str:
        return str(sum(row.found[column].verdict is verdict for row in sides.drifts if column in row.found))

    def mean(of: Callable[[DriftFinding], float], digits: int, column: str) -> str:
        return number_text(float(np.mean([of(row.found[column]) for row in shared])) if shared else math.nan, digits)

    cells: Cells[str] = {
        "rule": lambda column: column,
        **{verdict.value: partial(times, verdict) for verdict in Verdict},
        "mean absolute drift": partial(mean, lambda d: abs(d.drift.interval.mean), 2),
        "mean regret": partial(mean, lambda d: d.drift.regret, 4),
        "over rows": lambda _: str(len(shared)),
    }
    caption = "In all: means over the rows that every rule resolves"
    return make_table(caption, sides.columns, cells, numeric=tuple(cells)[1:])


def _numbers(d: DriftFinding, column: str, study: str, summary: Summary) -> dict[str, str | float | int]:
    c, drift = d.comparison, d.drift
    return {
        "column": column,
        "study": study,
        "axis": c.axis,
        "ladder": c.ladder,
        "target": d.side.label,
        "size": d.side.size,
        **{name: getattr(c, name) for name in ("corpus", "rule", "router", "knob", "tier")},
        "seeds": drift.interval.n,
        "drift": drift.interval.mean,
        "low": drift.interval.low,
        "high": drift.interval.high,
        **{name: getattr(drift, name) for name in ("regret", "gain", "detectable")},
        "tolerance": c.tolerance,
        "residual": c.residual,
        "predicted": math.nan if c.predicted is None else c.predicted,
        "verdict": drift.verdict.value,
        "expected": c.expected,
        "core_seconds": summary.costs.of(d.side.cells),
    }
