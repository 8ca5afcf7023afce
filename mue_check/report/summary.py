"""A study judged again from its records: every question with its numbers, its verdict and what it cost."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mue_check.catalog import AXES
from mue_check.errors import MueCheckError, StoreError
from mue_check.judge.early import compare_early, log2_ratio
from mue_check.judge.load import judge_load
from mue_check.judge.speedup import compare_learning
from mue_check.judge.trend import judge_trend
from mue_check.judge.verdict import Verdict, meets
from mue_check.questions.comparison import Comparison, Kind, load_comparisons
from mue_check.questions.stored import judge_coordinates, judge_stored_drift, law_rungs, side_table
from mue_check.records import Store
from mue_check.report.costs import Costs, cost_of, costs_of
from mue_check.report.findings import (
    DriftFinding,
    EarlyFinding,
    ForecastFinding,
    GammaFinding,
    LawsFinding,
    RoutingFinding,
    ShiftFinding,
    SpeedupFinding,
    TrendFinding,
)
from mue_check.report.format import DEFAULT_ROUTER
from mue_check.sigma0.calibrate import calibrate
from mue_check.sigma0.calibration import Calibration
from mue_check.sigma0.ladders import SIGMA0
from mue_check.sigma0.report.findings import (
    KappaFits,
    command_of,
    fit_kappas,
    foretelling,
    judge_forecasted,
    judge_gamma,
    judge_shift,
)

TREND_LADDER, TREND_SIZE = "capacity", 1024.0
"""Experts are added last and by the hundred, beyond what a small machine can hold: there a trend is asked for."""
_KNOBS = ("lr", "weight_decay", "init_std")
_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that a study says. ``calibration`` is what a drift budget can be made from; None where it lacks too much."""

    name: str
    drifts: tuple[DriftFinding, ...]
    laws: tuple[LawsFinding, ...]
    earlies: tuple[EarlyFinding, ...]
    speedups: tuple[SpeedupFinding, ...]
    routings: tuple[RoutingFinding, ...]
    trends: tuple[TrendFinding, ...]
    gammas: tuple[GammaFinding, ...]
    shifts: tuple[ShiftFinding, ...]
    forecasts: tuple[ForecastFinding, ...]
    kappas: KappaFits | None
    calibration: Calibration | None
    comparisons: tuple[Comparison, ...]
    costs: Costs

    @property
    def targets(self) -> list[DriftFinding]:
        """All drifts that have a law: no controls, and none of the sigma_0 laboratory."""
        return [d for d in self.drifts if not d.comparison.is_control and d.comparison.axis != SIGMA0]

    @property
    def sigma0_drifts(self) -> list[DriftFinding]:
        """The drifts of the sigma_0 laboratory: findings, with a section of their own."""
        return [d for d in self.drifts if d.comparison.axis == SIGMA0]

    @property
    def has_sigma0(self) -> bool:
        """Whether anything was asked of the sigma_0 laboratory."""
        return bool(self.gammas or self.shifts or self.forecasts or self.sigma0_drifts)

    @property
    def controls(self) -> list[DriftFinding]:
        """The drifts whose answer is known."""
        return [d for d in self.drifts if d.comparison.is_control]

    @property
    def verdicts(self) -> Mapping[str, tuple[tuple[Verdict, str], ...]]:
        """(verdict, expected) of every question by its kind: drift, coordinates, early curve, forecast, control.

        Those of which nothing is expected, of another rule beside the one under test, are not among them.
        """
        drifts = [(d.comparison, d.drift.verdict) for d in self.drifts]
        laws = [(found.comparison, result.verdict) for found in self.laws for result in found.results]
        earlies = [(e.comparison, e.early.verdict) for e in self.earlies]
        routings = [(r.comparison, r.load.verdict) for r in self.routings if r.load.verdict]
        kinds = {
            "drift": drifts,
            "coordinates": laws,
            "early curve": earlies,
            "routing": routings,
            "gamma": [(g.comparison, g.gammas.verdict) for g in self.gammas],
            "shift of sigma_0": [(s.comparison, s.shift.judge(s.comparison.tolerance)) for s in self.shifts],
            "forecast": [(f.comparison, f.verdict) for f in self.forecasts],
        }
        found = {
            kind: tuple((verdict, c.expected) for c, verdict in pairs if c.expected and not c.is_control)
            for kind, pairs in kinds.items()
        }
        found["control"] = tuple(
            (verdict, c.expected) for pairs in kinds.values() for c, verdict in pairs if c.is_control
        )
        return {kind: pairs for kind, pairs in found.items() if pairs}

    @property
    def verdict(self) -> Verdict:
        """FAIL when any question is answered against its expected verdict, else INCONCLUSIVE when any is open."""
        pairs = [pair for kind in self.verdicts.values() for pair in kind]
        if any(verdict is not Verdict.INCONCLUSIVE and not meets(verdict, expected) for verdict, expected in pairs):
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE if any(v is Verdict.INCONCLUSIVE for v, _ in pairs) else Verdict.PASS

    @property
    def as_expected(self) -> bool:
        """Whether every question has its expected verdict; one that is open has not."""
        return self.verdict is Verdict.PASS


def summarize(root: Path) -> Summary:
    """Judge every comparison under ``root``. StoreError, one line, when there is none or a cell is missing."""
    store = Store(root)
    comparisons = sorted(load_comparisons(root), key=place)

    def all_of(kind: Kind, judge: Callable[[Comparison, Store], _Found]) -> tuple[_Found, ...]:
        return tuple(_judged(c, store, judge) for c in comparisons if c.kind == kind)

    drifts, laws = all_of("drift", _drift), all_of("coordinates", _laws)
    gammas = all_of("gamma", judge_gamma)
    shifts = all_of("sigma0", lambda c, s: judge_shift(c, s, drifts))
    kappas = fit_kappas(shifts)
    calibration = calibrate(
        store,
        comparisons,
        command_of(comparisons),
        gammas={g.comparison.name: g.gammas for g in gammas},
        points=kappas.every.points if kappas else (),
    )
    foretold_from = foretelling(calibration)
    return Summary(
        name=root.resolve().name,
        drifts=drifts,
        laws=laws,
        earlies=all_of("early_curve", _early),
        speedups=all_of("speedup", _speedup),
        routings=all_of("routing", lambda c, s: _routing(c, s, drifts, laws)),
        trends=tuple(_trends(drifts)),
        gammas=gammas,
        shifts=shifts,
        forecasts=all_of("forecast", lambda c, s: judge_forecasted(c, s, foretold_from)),
        kappas=kappas,
        calibration=calibration,
        comparisons=tuple(comparisons),
        costs=costs_of(store, comparisons),
    )


def place(comparison: Comparison) -> tuple[bool, int, str, int, bool, str, str, int, str, str, str]:
    """Where a question stands: controls last, axes in their own order, sizes ascending, and of one target rule by rule.

    A file's name would put d128 before d64.
    """
    c = comparison
    axis = AXES.index(c.axis) if c.axis in AXES else len(AXES)
    knob = _KNOBS.index(c.knob) if c.knob in _KNOBS else len(_KNOBS)
    size, label = (c.sides[-1].size, c.sides[-1].label) if c.sides else (0, "")
    where = (c.is_control, axis, c.ladder, knob, c.router != DEFAULT_ROUTER, c.router, c.corpus)
    return *where, size, label, c.rule, c.name


def _judged(comparison: Comparison, store: Store, judge: Callable[[Comparison, Store], _Found]) -> _Found:
    try:
        return judge(comparison, store)
    except (MueCheckError, KeyError, ValueError, IndexError) as error:
        what = str(error) if isinstance(error, MueCheckError) else f"its cells do not fit the question ({error!r})"
        line = " ".join(what.split())
        raise StoreError(f"cannot judge {comparison.name!r}: {line}; run the study again") from None


def _drift(comparison: Comparison, store: Store) -> DriftFinding:
    reference, target, drift = judge_stored_drift(store, comparison)
    return DriftFinding(
        comparison=comparison,
        reference=reference,
        target=target,
        drift=drift,
        core_seconds=cost_of(store, comparison.sides[-1].cells),
    )


def _laws(comparison: Comparison, store: Store) -> LawsFinding:
    rungs = law_rungs(store, comparison.sides)
    return LawsFinding(
        comparison=comparison,
        results=tuple(judge_coordinates(comparison.ladder, rungs)),
        tables=tuple(rung.table for rung in rungs),
    )


def _early(comparison: Comparison, store: Store) -> EarlyFinding:
    reference, target = (side_table(store, side) for side in comparison.sides)
    steps, ratio = log2_ratio(reference, target)
    return EarlyFinding(comparison=comparison, early=compare_early(reference, target), steps=steps, ratio=ratio)


def _speedup(comparison: Comparison, store: Store) -> SpeedupFinding:
    reference, target = (side_table(store, side) for side in comparison.sides)
    return SpeedupFinding(comparison=comparison, speedup=compare_learning(reference, target))


def _routing(
    comparison: Comparison, store: Store, drifts: Sequence[DriftFinding], laws: Sequence[LawsFinding]
) -> RoutingFinding:
    (side,) = comparison.sides
    own = [d for d in drifts if _setting(d.comparison) == _setting(comparison) and d.side.label == side.label]
    return RoutingFinding(
        comparison=comparison,
        load=judge_load(side_table(store, side), comparison.weight_sum),
        drift=next((d for d in own if _ordinary(d)), None),
        laws=next((found for found in laws if _setting(found.comparison) == _setting(comparison)), None),
    )


def _trends(drifts: Iterable[DriftFinding]) -> Iterable[TrendFinding]:
    ladders: dict[tuple[str, ...], list[DriftFinding]] = {}
    for d in drifts:
        sizes = [side.size for side in d.comparison.sides]
        # the line runs through the reference, in log2 of the size
        if d.comparison.ladder == TREND_LADDER and _ordinary(d) and min(sizes) > 0 and sizes[0] != sizes[-1]:
            ladders.setdefault(_setting(d.comparison), []).append(d)
    for found in ladders.values():
        points = [(float(d.side.size), d.drift) for d in found]
        trend = judge_trend(float(found[0].comparison.sides[0].size), points, TREND_SIZE)
        if trend is not None:
            yield TrendFinding(drifts=tuple(found), trend=trend)


def _setting(c: Comparison) -> tuple[str, ...]:
    return c.ladder, c.corpus, c.rule, c.router


def _ordinary(found: DriftFinding) -> bool:
    """Whether it is a question of the learning rate, and no control."""
    return found.comparison.knob == "lr" and not found.comparison.is_control
