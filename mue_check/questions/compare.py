"""Rules side by side, from one study or several: one row per question, one column per rule."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
import pandas as pd

from mue_check.errors import StoreError
from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison, place
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import F, Summary
from mue_check.questions.scales import LawsFinding


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
class Count:
    """The verdicts of one column. The means are over the ``shared`` rows that every column resolves."""

    column: str
    verdicts: dict[Verdict, int]
    mean_drift: float
    mean_regret: float
    shared: int


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """The drifts of the studies, without controls. ``studies`` has the name and the summary of each column's study.

    ``columns`` are rules, or ``study/rule`` where two studies share a rule.
    """

    columns: tuple[str, ...]
    drifts: tuple[Compared[DriftFinding], ...]
    laws: tuple[Compared[LawsFinding], ...]
    studies: dict[str, tuple[str, Summary]]

    def counts(self) -> list[Count]:
        """One for each column."""
        resolved = [{column for column, d in row.found.items() if d.drift.reason is None} for row in self.drifts]
        shared = [row for row, columns in zip(self.drifts, resolved, strict=True) if columns == set(self.columns)]
        return [
            Count(
                column=column,
                verdicts=dict(Counter(row.found[column].verdict for row in self.drifts if column in row.found)),
                mean_drift=_mean([abs(row.found[column].drift.interval.mean) for row in shared]),
                mean_regret=_mean([row.found[column].drift.regret for row in shared]),
                shared=len(shared),
            )
            for column in self.columns
        ]

    def numbers(self) -> pd.DataFrame:
        """Raw numbers, one line for each question and column."""
        return pd.DataFrame(
            [_numbers(row, column, *self.studies[column]) for row in self.drifts for column in row.found]
        )


def compare_studies(roots: Sequence[Path], summarize: Callable[[Path], Summary]) -> SideBySide:
    """Judge the studies and set their drifts side by side. StoreError, one line, for a folder without drifts."""
    unique = {root.resolve(): root for root in roots}.values()
    summaries = [summarize(root) for root in unique]
    names = [summary.name for summary in summaries]
    if len(set(names)) < len(names):
        names = [str(root) for root in unique]
    for name, summary in zip(names, summaries, strict=True):
        if not main_drifts(summary):
            raise StoreError(f"study {name!r} has no drift to compare")
    return side_by_side(names, summaries)


def main_drifts(summary: Summary) -> list[DriftFinding]:
    """The drifts of the main table: no controls, and none of an axis with a separate section."""
    found = summary.of(DriftFinding)
    return [d for d in found if not d.comparison.is_control and d.comparison.axis not in summary.own_axes]


def side_by_side(names: Sequence[str], summaries: Sequence[Summary]) -> SideBySide:
    """The drifts of studies that are judged already, under these names."""
    rules = Counter(rule for s in summaries for rule in {d.comparison.rule for d in main_drifts(s)})
    studies: dict[str, tuple[str, Summary]] = {}
    drifts: dict[tuple[str, ...], Compared[DriftFinding]] = {}
    laws: dict[tuple[str, ...], Compared[LawsFinding]] = {}
    for name, summary in zip(names, summaries, strict=True):

        def column_of(c: Comparison, name: str = name) -> str:
            return c.rule if rules[c.rule] == 1 else f"{name}/{c.rule}"

        for d in main_drifts(summary):
            c = d.comparison
            studies.setdefault(column_of(c), (name, summary))
            key = (c.ladder, d.side.label, c.corpus, c.knob, c.router)
            drifts.setdefault(key, Compared(comparison=c, found={})).found[column_of(c)] = d
        for found in summary.of(LawsFinding):
            c = found.comparison
            if column_of(c) in studies and not c.is_control:
                where = (c.ladder, c.corpus, c.router)
                laws.setdefault(where, Compared(comparison=c, found={})).found[column_of(c)] = found

    def order(row: Compared[DriftFinding] | Compared[LawsFinding]) -> tuple[object, ...]:
        return place(row.comparison, summaries[0].axes)[:-2]  # without rule and name

    return SideBySide(
        columns=tuple(studies),
        drifts=tuple(sorted(drifts.values(), key=order)),
        laws=tuple(sorted(laws.values(), key=order)),
        studies=studies,
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _numbers(row: Compared[DriftFinding], column: str, study: str, summary: Summary) -> dict[str, str | float | int]:
    d = row.found[column]
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
        "regret": drift.regret,
        "gain": drift.gain,
        "detectable": drift.detectable,
        "tolerance": c.tolerance,
        "residual": c.residual,
        "predicted": math.nan if c.predicted is None else c.predicted,
        "verdict": drift.verdict.value,
        "expected": c.expected,
        "core_seconds": summary.costs.of(d.side.cells),
    }
