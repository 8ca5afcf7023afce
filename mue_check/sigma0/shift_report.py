"""The report of shifts of sigma_0: the residual under uneven loads, and the drift that goes with a shift."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, NamedTuple

from mue_check.judge.interval import Interval, t_interval
from mue_check.questions.axes_report import curve_pictures
from mue_check.questions.case import Options, Scope, TargetCase
from mue_check.questions.display import Palette, grouped, question_columns
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_report import DETECTABLE, DRIFT, drift_note, seeds_text
from mue_check.questions.question import Findings, JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import NONE, bounded_text, in_words, interval_text, number_text, routing_words
from mue_check.report.section import Fold, Part, Picture, Section
from mue_check.report.table import Cells, Row, Table, make_table
from mue_check.sigma0.calibrate import BUDGET, OF_LOAD, arm_of, drifts_by_arm, kappa_fits, kappa_points
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.ladders import (
    HELDOUT_LOADS,
    LABORATORIES,
    LOADS,
    PROBED_LOADS,
    SIGMA0,
    LoadUse,
    load_use,
    probed_load,
)
from mue_check.sigma0.residual import ResidualFit, ResidualGroup, best_measure, residual_groups
from mue_check.sigma0.shift import ShiftFinding, judge_stored_shift
from mue_check.sigma0.shift_plots import plot_kappa, plot_residuals
from mue_check.study.comparison import Comparison

_STRENGTHS = (0.0, 0.5, 1.0)
_SHIFT = "shift of log2 sigma_0 [95 %]"


def load_cases(options: Options, scope: Scope, use: LoadUse) -> list[TargetCase]:
    """The targets on the first corpus whose drifts serve that use."""
    if not scope.is_selected(options):
        return []
    corpus = options.corpora[0]
    return [
        TargetCase(corpus=corpus, ladder=ladder, target=target)
        for ladder in options.ladders(scope.axis, corpus)
        for target in ladder.targets
        if load_use(ladder.name) == use
    ]


def _shift_cases(options: Options, scope: Scope) -> list[TargetCase]:
    """Every target that a fit uses; on other corpora the loads whose noise is measured there for gamma."""
    cases = load_cases(options, scope, "fit")
    loads = LABORATORIES[options.tier.name].noise_loads
    known = [c for c in cases if c.ladder.name == LOADS and c.target.load in loads]
    return cases + [replace(case, corpus=corpus) for corpus in options.corpora[1:] for case in known]


class ShiftKind(JudgedKind[ShiftFinding]):
    """Shifts of sigma_0. Drifts along the same ladders, and along those of the causal probe, are reported here too."""

    kind = "sigma0"
    measurement = "gradient_noise"
    label = "shift of sigma_0"
    axes = (SIGMA0,)
    cases: ClassVar = {
        "shift_case": _shift_cases,
        "load_case": partial(load_cases, use="fit"),
        "scaled_load_case": partial(load_cases, use="probe"),
    }

    def judge(self, store: Store, comparison: Comparison) -> ShiftFinding:
        """Compare the noise of both sides."""
        return judge_stored_shift(store, comparison)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """Residuals, drifts, the line that joins them and the causal probe; loss curves fold."""
        shifts, drifts = summary.of(ShiftFinding), _drifts(summary)
        if not shifts and not drifts:
            return
        tables = (
            residual_table(shifts),
            residual_fit_table(residual_groups(shifts)),
            drift_table(summary),
            kappa_table(summary.findings),
            probe_table(drifts),
        )
        curves = tuple(curve_pictures(drifts, Palette.of_study(summary.comparisons)))
        yield Section(
            part=Part.ANSWERS,
            anchor="sigma0",
            title="sigma_0: its shift, and the drift that goes with it",
            text="The shift of sigma_0 = eta sigma between two models at one learning rate eta, in octaves. Its "
            "residual is what remains after the theory's shift (gamma = 1/2) is subtracted.",
            lines=tuple(_lines(summary)),
            tables=tuple(table for table in tables if table.rows),
            pictures=tuple(_pictures(summary)),
            folds=(Fold(title=f"Loss curves: {len(curves)} figures", pictures=curves),) if curves else (),
        )

    def headlines(self, summary: Summary) -> list[str]:
        """The residual of each routing and corpus, and kappa."""
        return [f"sigma_0: {line}" for line in _lines(summary)]


SHIFT = ShiftKind()


def _drifts(summary: Summary) -> list[DriftFinding]:
    return [d for d in summary.of(DriftFinding) if d.comparison.axis == SIGMA0]


def residual_table(found: Sequence[ShiftFinding]) -> Table:
    """Every shift: how uneven the load is, what was measured, what the theory says, and the difference."""

    def figure(of: Callable[[Imbalance], float], digits: int = 2) -> Callable[[ShiftFinding], str]:
        # rounding may leave the shortfall of the even load a little below 0
        return lambda s: number_text(round(of(s.imbalance), 9) + 0.0, digits) if s.imbalance else NONE

    measures: dict[str, Callable[[ShiftFinding], str]] = {
        "coefficient of variation": figure(lambda i: i.variation),
        "normalized entropy": figure(lambda i: i.entropy, 3),
        "max/mean": figure(lambda i: i.peak),
        "shortfall (bits)": figure(lambda i: i.shortfall_bits),
    }
    cells: Cells[ShiftFinding] = {
        **question_columns(found),
        **measures,
        _SHIFT: lambda s: _measured_text(s, s.shift.shift),
        "theory's": lambda s: NONE if s.shift.reason else f"{s.shift.theory:+.2f}",
        "residual [95 %]": lambda s: _measured_text(s, s.shift.residual),
        "verdict": lambda s: s.verdict.value if s.verdict else NONE,
    }
    caption = "Residual of sigma_0 = measured - theory's shift (octaves)"
    return make_table(caption, found, cells, numeric=(*measures, "theory's"), note=lambda s: s.shift.reason or "")


class _Fit(NamedTuple):
    group: ResidualGroup
    fit: ResidualFit


def residual_fit_table(groups: Sequence[ResidualGroup]) -> Table:
    """Octaves of residual per unit of imbalance, group by group."""
    cells: Cells[_Fit] = {
        "routing": lambda r: routing_words(r.group.routing),
        "corpus": lambda r: r.group.corpus,
        "against": lambda r: r.fit.measure,
        "loads": lambda r: str(len(r.group.loads)),
        "slope [95 %], through 0": lambda r: bounded_text(r.fit.slope),
        "scatter (octaves)": lambda r: number_text(r.fit.scatter),
        "ordinary slope [95 %]": lambda r: bounded_text(r.fit.ordinary),
        "its intercept": lambda r: number_text(r.fit.intercept),
        "robust slope [95 %]": lambda r: bounded_text(r.fit.robust),
        "explains of the residual": lambda r: f"{r.fit.explained:.0%}" if r.fit.reason is None else NONE,
        "explains of the shift": lambda r: f"{r.fit.shift_explained:.0%}" if r.fit.reason is None else NONE,
    }
    numeric = ("loads", "scatter (octaves)", "its intercept", "explains of the residual", "explains of the shift")
    caption = "The residual against each measure of imbalance (octaves per unit of the measure)"
    rows = [_Fit(group, fit) for group in groups for fit in group.fits]
    return make_table(caption, rows, cells, numeric=numeric, note=lambda r: r.fit.reason or "")


def drift_table(summary: Summary) -> Table:
    """The laboratory's drifts, but for the probe's, with the shifts of the same targets."""
    found = [d for d in _drifts(summary) if d.comparison.ladder != PROBED_LOADS]
    shifts = {arm_of(s.comparison): s for s in summary.of(ShiftFinding)}

    def shift_text(drift: DriftFinding) -> str:
        shift = shifts.get(arm_of(drift.comparison))
        return _measured_text(shift, shift.shift.shift) if shift else NONE

    def use(drift: DriftFinding) -> str:
        if drift.comparison.ladder == HELDOUT_LOADS:
            return "held out"
        if drift.comparison.ladder not in OF_LOAD:
            return "no: not a load"
        shift = shifts.get(arm_of(drift.comparison))
        if not shift or shift.shift.reason:
            return "no: no shift"
        return "no: no drift" if drift.drift.reason else "yes"

    cells: Cells[DriftFinding] = {
        **question_columns(found),
        _SHIFT: shift_text,
        DRIFT: lambda d: interval_text(d.drift.interval),
        DETECTABLE: lambda d: number_text(d.drift.detectable),
        "seeds": seeds_text,
        "in the budget's fit": use,
        "core-s": lambda d: f"{summary.costs.of(d.side.cells):.1f}",
    }
    caption = "Drift of the optimal learning rate against the shift of sigma_0"
    return make_table(caption, found, cells, numeric=(DETECTABLE, "seeds", "core-s"), note=drift_note)


def kappa_table(findings: Findings) -> Table:
    """drift = kappa x shift + c0, through 0 and free, and each ladder's own slope."""
    header = ("line", "points", "kappa [95 %]", "c0 [95 %]", "tau", "ordinary", "robust", "one slope, p")
    rows: list[Row] = []
    shown: set[tuple[str, bool]] = set()
    points = kappa_points(findings)
    for name, fit in kappa_fits(points).items() if points else ():
        if isinstance(fit, str):
            rows.append(Row(cells=(name, *[NONE] * (len(header) - 1)), note=fit))
            continue
        intercept = NONE if fit.origin else interval_text(fit.intercept)
        numbers = [*(number_text(v) for v in (fit.tau, fit.ordinary[1], fit.robust[1])), f"{fit.same_slope:.2g}"]
        rows.append(Row(cells=(name, str(len(fit.points)), bounded_text(fit.kappa), intercept, *numbers)))
        # a ladder's own slope is the same in every fit: once is enough
        for ladder, slope in ((n, slope) for n, slope in fit.ladders.items() if (n, fit.origin) not in shown):
            shown.add((ladder, fit.origin))
            count = sum(p.ladder == ladder for p in fit.points)
            own = (f"{name}: {in_words(ladder)} alone", str(count), bounded_text(slope))
            rows.append(Row(cells=(*own, *[NONE] * (len(header) - len(own)))))
    caption = "Drift = kappa x shift + c0, with scatter tau (octaves) that errors of measurement do not explain"
    return Table(caption=caption, header=header, rows=tuple(rows), numeric=(1, 4, 5, 6, 7))


class _Probe(NamedTuple):
    """The drifts of one load by the strength of the probe."""

    load: str
    drifts: dict[float, DriftFinding]

    @property
    def comparison(self) -> Comparison:
        return next(iter(self.drifts.values())).comparison

    def text(self, strength: float) -> str:
        return interval_text(self.drifts[strength].drift.interval) if strength in self.drifts else NONE

    @property
    def effect(self) -> str:
        """Full strength against none. Both drifts share a reference, which cancels seed by seed."""
        if not {0.0, 1.0} <= set(self.drifts):
            return NONE
        none, full = (self.drifts[strength].drift.by_seed for strength in (0.0, 1.0))
        return interval_text(t_interval([full[seed] - none[seed] for seed in full if seed in none]))


def probe_table(drifts: Sequence[DriftFinding]) -> Table:
    """The causal probe: drifts when each expert's update is scaled with its load."""
    arms = [d for d in drifts if d.comparison.ladder in (LOADS, PROBED_LOADS)]
    groups = grouped(arms, lambda d: (probed_load(d.side.label)[0], d.comparison.corpus, d.comparison.rule))
    probes = [_Probe(load, {probed_load(d.side.label)[1]: d for d in group}) for (load, *_), group in groups]
    cells: Cells[_Probe] = {
        "load": lambda p: p.load,
        "corpus": lambda p: p.comparison.corpus,
        "rule": lambda p: p.comparison.rule,
        **{f"strength {strength:g} [95 %]": partial(_Probe.text, strength=strength) for strength in _STRENGTHS},
        "1 against 0, by seed [95 %]": lambda p: p.effect,
    }
    caption = "Causal probe: drift (octaves) when each expert's update is scaled with its load"
    return make_table(caption, [probe for probe in probes if set(probe.drifts) - {0.0}], cells)


def _measured_text(found: ShiftFinding, interval: Interval) -> str:
    return NONE if found.shift.reason else interval_text(interval)


def _lines(summary: Summary) -> Iterator[str]:
    for line in _residual_lines(residual_groups(summary.of(ShiftFinding))):
        yield f"residual, {line}"
    points = kappa_points(summary.findings)
    fits = kappa_fits(points) if points else {}
    known = {name: fit for name, fit in fits.items() if not isinstance(fit, str)}
    if budget := known.pop(BUDGET, None):
        line = f"kappa under loads {bounded_text(budget.kappa)} through 0, scatter {budget.tau:.2f} octave"
        names = {"loads": "with c0"}
        more = [f"{names.get(name, name)} {bounded_text(fit.kappa)}" for name, fit in known.items()]
        yield "; ".join([f"{line}, {len(budget.points)} points", *more])


def _residual_lines(groups: Sequence[ResidualGroup]) -> Iterator[str]:
    """The slope of each group, and the measure of imbalance that explains most of its shift."""
    for group in groups:
        if fit := group.quoted:
            where = f"{routing_words(group.routing)} routing on {group.corpus}"
            slope = f"{where}: {bounded_text(fit.slope)} octaves per bit of shortfall, {len(group.loads)} loads"
            best = best_measure(group.fits)
            if best is None:
                yield f"{slope}, too few to rank the measures of imbalance"
            else:
                yield f"{slope}; {best.measure} explains most of the measured shift ({best.shift_explained:.0%})"


def _pictures(summary: Summary) -> Iterator[Picture]:
    if groups := residual_groups(summary.of(ShiftFinding)):
        alt = f"Residual of sigma_0 against imbalance. {'; '.join(_residual_lines(groups))}"
        yield Picture.of(("sigma0", "residual"), alt, plot_residuals, groups)
    if points := kappa_points(summary.findings):
        drifts = drifts_by_arm(summary.findings)
        measured = "; ".join(
            f"{s.side.label} {interval_text(s.shift.shift)}, {interval_text(drift.drift.interval)}"
            for s in summary.of(ShiftFinding)
            if s.shift.reason is None and (drift := drifts.get(arm_of(s.comparison)))
        )
        alt = f"Drift against the shift of sigma_0. Shift and drift of {measured}"
        yield Picture.of(("sigma0", "kappa"), alt, plot_kappa, points, kappa_fits(points)[BUDGET])
