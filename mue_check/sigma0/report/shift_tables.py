"""The tables of the drift that goes with a shift of sigma_0: the line, forecasts from it, and the causal probe."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mue_check.judge.interval import t_interval
from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison
from mue_check.report.drift_tables import DRIFT, POWER
from mue_check.report.findings import DriftFinding, ForecastFinding, ShiftFinding
from mue_check.report.format import NONE, bounded_text, in_words, interval_text, number_text
from mue_check.report.summary import Summary
from mue_check.report.table import Cells, Row, Table, asked_columns, make_table
from mue_check.sigma0.calibrate import OF_LOAD, arm_of
from mue_check.sigma0.ladders import HELDOUT_LOADS, LOADS, SCALED_LOADS, probed_load
from mue_check.sigma0.report.residual_tables import measured_text

_STRENGTHS = (0.0, 0.5, 1.0)


class _Moved(NamedTuple):
    """An arm with its drift, and its shift where that was measured."""

    drift: DriftFinding
    shift: ShiftFinding | None

    @property
    def comparison(self) -> Comparison:
        return self.drift.comparison


class _Probe(NamedTuple):
    """The drifts of one load by the strength of the probe."""

    load: str
    drifts: Mapping[float, DriftFinding]

    @property
    def comparison(self) -> Comparison:
        return next(iter(self.drifts.values())).comparison


def shift_drift_table(summary: Summary) -> Table:
    """Every drift of the laboratory but the probe's, with the shift that went with it."""
    shifts = {arm_of(s.comparison): s for s in summary.shifts}
    drifts = [d for d in summary.sigma0_drifts if d.comparison.ladder != SCALED_LOADS]
    rows = [_Moved(d, shifts.get(arm_of(d.comparison))) for d in drifts]
    cells: Cells[_Moved] = {
        **asked_columns(rows),
        "shift of log2 sigma_0 [95 %]": lambda r: measured_text(r.shift, r.shift.shift.shift) if r.shift else NONE,
        DRIFT: lambda r: interval_text(r.drift.drift.interval),
        POWER: lambda r: number_text(r.drift.drift.detectable),
        "seeds": lambda r: str(r.drift.drift.interval.n),
        "in the budget's fit": _use,
        "core-s": lambda r: f"{r.drift.core_seconds:.1f}",
    }
    return make_table(
        "Drift of the optimal learning rate against the shift of sigma_0",
        rows,
        cells,
        numeric=(POWER, "seeds", "core-s"),
        note=lambda r: f"unresolved: {r.drift.drift.reason}" if r.drift.drift.reason else "",
    )


def kappa_table(summary: Summary) -> Table:
    """drift = kappa x shift + c0: through the origin and free, and each ladder's own slope."""
    header = ("line", "points", "kappa [95 %]", "c0 [95 %]", "tau", "ordinary", "robust", "one slope, p")
    rows: list[Row] = []
    shown: set[tuple[str, bool]] = set()
    k = summary.kappas
    fits = {"loads, through 0 (the budget's)": k.budget, "loads": k.loads, "every ladder": k.every} if k else {}
    for name, fit in fits.items():
        if fit.reason is not None:
            cells = [name, str(len(fit.points)), *[NONE] * (len(header) - 2)]
            rows.append(Row(cells=tuple(cells), note=fit.reason))
            continue
        intercept = NONE if fit.origin else interval_text(fit.intercept)
        numbers = [*(number_text(v) for v in (fit.tau, fit.ordinary[1], fit.robust[1])), f"{fit.same_slope:.2g}"]
        rows.append(Row(cells=(name, str(len(fit.points)), bounded_text(fit.kappa), intercept, *numbers)))
        # a ladder's own slope does not depend on the others: once is enough
        for ladder, slope in ((n, slope) for n, slope in fit.ladders.items() if (n, fit.origin) not in shown):
            shown.add((ladder, fit.origin))
            points = sum(p.ladder == ladder for p in fit.points)
            own = (f"{name}: {in_words(ladder)} alone", str(points), bounded_text(slope))
            rows.append(Row(cells=(*own, *[NONE] * (len(header) - 3))))
    caption = "Drift = kappa x shift + c0, with scatter tau (octaves) that errors of measurement do not explain"
    return Table(caption=caption, header=header, rows=tuple(rows), numeric=(1, 4, 5, 6, 7))


def forecast_table(summary: Summary) -> Table:
    """Loads that no fit has seen: the interval that the budget foretells of such a measurement, and the drift."""
    cells: Cells[ForecastFinding] = {
        **asked_columns(summary.forecasts),
        "foretold [95 %] (octaves)": lambda f: interval_text(f.forecast.forecast) if f.forecast else NONE,
        DRIFT: lambda f: interval_text(f.drift.interval),
        "inside": _inside,
        "verdict": lambda f: f.verdict.value,
    }
    return make_table("Forecasts of loads that no fit has seen", summary.forecasts, cells, note=_forecast_note)


def forecast_text(summary: Summary) -> str:
    """``forecasts: 9 of 10 inside, median width 0.31 octave``, and in how many there was no drift to be seen."""
    judged = [f for f in summary.forecasts if f.verdict is not Verdict.INCONCLUSIVE and f.forecast]
    left = len(summary.forecasts) - len(judged)
    more = f"; {left} not resolved" if left else ""
    if not judged:
        return f"forecasts: none judged{more}" if summary.forecasts else ""
    inside = sum(f.verdict is Verdict.PASS for f in judged)
    widths = sorted(2 * f.forecast.forecast.half_width for f in judged if f.forecast)
    middle = (widths[(len(widths) - 1) // 2] + widths[len(widths) // 2]) / 2
    still = sum(f.drift.interval.low <= 0 <= f.drift.interval.high for f in judged)
    return (
        f"forecasts: {inside} of {len(judged)} inside, median width {middle:.2f} octave; "
        f"0 lies in {still} of the measured intervals{more}"
    )


def probe_table(summary: Summary) -> Table:
    """Each expert's update scaled with its load: the drift by the strength of that."""
    loads: dict[tuple[str, ...], dict[float, DriftFinding]] = {}
    for d in summary.sigma0_drifts:
        load, strength = probed_load(d.side.label)
        if d.comparison.ladder in (LOADS, SCALED_LOADS):
            loads.setdefault((load, d.comparison.corpus, d.comparison.rule), {})[strength] = d
    rows = [_Probe(load, drifts) for (load, *_), drifts in loads.items() if set(drifts) - {0.0}]

    def drift(strength: float) -> Callable[[_Probe], str]:
        return lambda p: interval_text(p.drifts[strength].drift.interval) if strength in p.drifts else NONE

    cells: Cells[_Probe] = {
        "load": lambda p: p.load,
        "corpus": lambda p: p.comparison.corpus,
        "rule": lambda p: p.comparison.rule,
        **{f"strength {strength:g} [95 %]": drift(strength) for strength in _STRENGTHS},
        "1 against 0, by seed [95 %]": _probe_effect,
    }
    return make_table("Causal probe: drift (octaves) when each expert's update is scaled with its load", rows, cells)


def _probe_effect(probe: _Probe) -> str:
    """Both drifts are from one reference, which falls out seed by seed."""
    if not {0.0, 1.0} <= set(probe.drifts):
        return NONE
    none, full = (probe.drifts[strength].drift.by_seed for strength in (0.0, 1.0))
    return interval_text(t_interval([full[seed] - none[seed] for seed in full if seed in none]))


def _use(moved: _Moved) -> str:
    if moved.comparison.ladder == HELDOUT_LOADS:
        return "held out"
    if moved.comparison.ladder not in OF_LOAD:
        return "no: not a load"
    known = moved.shift and moved.shift.shift.reason is None and moved.drift.drift.reason is None
    return "yes" if known else "no: " + ("no shift" if not moved.shift or moved.shift.shift.reason else "no drift")


def _inside(found: ForecastFinding) -> str:
    return {Verdict.PASS: "yes", Verdict.FAIL: "no"}.get(found.verdict, NONE)


def _forecast_note(found: ForecastFinding) -> str:
    if found.forecast is None:
        return "not foretold: this study's gamma and kappa do not make a calibration, and none comes with this version"
    return f"unresolved: {found.drift.reason}" if found.drift.reason else ""
