"""A study judged again from its records: every question with its numbers, its verdict and what it cost.

Shapes: S seeds, T steps. Losses in nats per token, drifts in octaves of the base learning rate.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.errors import StoreError
from mue_check.judge.drift import Drift
from mue_check.judge.early import EarlyComparison, compare_early, log2_ratio
from mue_check.judge.law import LawResult
from mue_check.judge.optimum import Curve
from mue_check.judge.verdict import Verdict
from mue_check.records import Store
from mue_check.study.comparison import Comparison, load_comparisons
from mue_check.study.reading import judge_coordinates, judge_stored_drift, law_rungs, side_table

_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class DriftFinding:
    """One drift with both curves; ``core_seconds`` is what the target's rung cost."""

    comparison: Comparison
    reference: Curve
    target: Curve
    drift: Drift
    core_seconds: float

    @property
    def regret_share(self) -> float | None:
        """Regret over gain; None where the target wins nothing that could be lost."""
        return self.drift.regret / self.drift.gain if self.drift.gain > 0 else None


@dataclass(frozen=True, kw_only=True)
class LawsFinding:
    """The laws of one ladder; ``tables`` are the coordinates of its sides, in their order."""

    comparison: Comparison
    results: tuple[LawResult, ...]
    tables: tuple[pd.DataFrame, ...]


@dataclass(frozen=True, kw_only=True)
class EarlyFinding:
    """log2(target loss / reference loss), ``ratio`` [S, T], at ``steps`` [T], with what the judge says of it."""

    comparison: Comparison
    early: EarlyComparison
    steps: NDArray[np.int64]
    ratio: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RungCost:
    """Core-seconds of all cells that one rung's questions are answered from."""

    axis: str
    corpus: str
    rule: str
    label: str
    model: str
    core_seconds: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that a study says. ``core_seconds`` counts a cell that several rungs share once."""

    name: str
    drifts: tuple[DriftFinding, ...]
    laws: tuple[LawsFinding, ...]
    earlies: tuple[EarlyFinding, ...]
    comparisons: tuple[Comparison, ...]
    costs: tuple[RungCost, ...]
    core_seconds: float

    @property
    def verdicts(self) -> Mapping[str, tuple[tuple[Verdict, str], ...]]:
        """(verdict, expected) of every question by its kind: drift, coordinates, early curve, control."""
        drifts = [(d.comparison, d.drift.verdict) for d in self.drifts]
        laws = [(found.comparison, result.verdict) for found in self.laws for result in found.results]
        earlies = [(e.comparison, e.early.verdict) for e in self.earlies]
        kinds = {"drift": drifts, "coordinates": laws, "early curve": earlies}
        found = {
            kind: tuple((verdict, c.expected) for c, verdict in pairs if not c.is_control)
            for kind, pairs in kinds.items()
        }
        found["control"] = tuple(
            (verdict, c.expected) for pairs in kinds.values() for c, verdict in pairs if c.is_control
        )
        return {kind: pairs for kind, pairs in found.items() if pairs}

    @property
    def verdict(self) -> Verdict:
        """FAIL when any question has the opposite of its expected verdict, else INCONCLUSIVE when any is open."""
        pairs = [pair for kind in self.verdicts.values() for pair in kind]
        if any(verdict is not Verdict.INCONCLUSIVE and verdict != expected for verdict, expected in pairs):
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE if any(v is Verdict.INCONCLUSIVE for v, _ in pairs) else Verdict.PASS

    @property
    def as_expected(self) -> bool:
        """Whether every question has its expected verdict; one that is open has not."""
        return self.verdict is Verdict.PASS


def summarize(root: Path) -> Summary:
    """Judge every comparison under ``root``. StoreError, one line, when there is none or a cell is missing."""
    store = Store(root)
    comparisons = sorted(load_comparisons(root), key=_place)
    kinds = {kind: [c for c in comparisons if c.kind == kind] for kind in ("drift", "coordinates", "early_curve")}
    return Summary(
        name=root.resolve().name,
        drifts=tuple(_judged(c, store, _drift) for c in kinds["drift"]),
        laws=tuple(_judged(c, store, _laws) for c in kinds["coordinates"]),
        earlies=tuple(_judged(c, store, _early) for c in kinds["early_curve"]),
        comparisons=tuple(comparisons),
        costs=tuple(_costs(store, comparisons)),
        core_seconds=_cost(store, (key for c in comparisons for side in c.sides for key in side.cells)),
    )


def _place(comparison: Comparison) -> tuple[bool, str, str, str, int, str]:
    """Controls last, and the targets of an axis in ascending size, where the file name would put d128 before d64."""
    size = comparison.sides[-1].size if comparison.sides else 0
    return comparison.is_control, comparison.axis, comparison.corpus, comparison.rule, size, comparison.name


def _judged(comparison: Comparison, store: Store, judge: Callable[[Comparison, Store], _Found]) -> _Found:
    try:
        return judge(comparison, store)
    except (StoreError, KeyError, ValueError, IndexError) as error:
        what = str(error) if isinstance(error, StoreError) else f"its cells do not fit the question ({error!r})"
        line = " ".join(what.split())
        raise StoreError(f"cannot judge {comparison.name!r}: {line}; run the study again") from None


def _drift(comparison: Comparison, store: Store) -> DriftFinding:
    reference, target, drift = judge_stored_drift(store, comparison)
    return DriftFinding(
        comparison=comparison,
        reference=reference,
        target=target,
        drift=drift,
        core_seconds=_cost(store, comparison.sides[-1].cells),
    )


def _laws(comparison: Comparison, store: Store) -> LawsFinding:
    rungs = law_rungs(store, comparison.sides)
    return LawsFinding(
        comparison=comparison,
        results=tuple(judge_coordinates(comparison.axis, rungs)),
        tables=tuple(rung.table for rung in rungs),
    )


def _early(comparison: Comparison, store: Store) -> EarlyFinding:
    reference, target = (side_table(store, side) for side in comparison.sides)
    steps, ratio = log2_ratio(reference, target)
    return EarlyFinding(comparison=comparison, early=compare_early(reference, target), steps=steps, ratio=ratio)


def _costs(store: Store, comparisons: Iterable[Comparison]) -> list[RungCost]:
    cells: dict[tuple[str, str, str, str, str], list[str]] = {}
    for c in comparisons:
        for side in c.sides:
            cells.setdefault((c.axis, c.corpus, c.rule, side.label, side.model), []).extend(side.cells)
    return [
        RungCost(axis=axis, corpus=corpus, rule=rule, label=label, model=model, core_seconds=_cost(store, keys))
        for (axis, corpus, rule, label, model), keys in cells.items()
    ]


def _cost(store: Store, keys: Iterable[str]) -> float:
    """Core-seconds of the cells, each once; in a fixed order, so that the sum is the same to the last bit."""
    return sum(store.cost(key) for key in sorted(set(keys)))
