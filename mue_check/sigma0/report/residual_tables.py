"""The tables of the residual of sigma_0: load by load, and its fits against the imbalance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mue_check.judge.interval import Interval
from mue_check.report.findings import ShiftFinding
from mue_check.report.format import NONE, bounded_text, interval_text, number_text, routing_words
from mue_check.report.summary import Summary
from mue_check.report.table import Cells, Table, asked_columns, make_table
from mue_check.sigma0.budget import EVEN
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.ladders import SCALED_LOADS
from mue_check.sigma0.residual import SHORTFALL, ResidualFit, ResidualPoint, best_measure, fit_residuals


@dataclass(frozen=True, kw_only=True)
class ResidualGroup:
    """Loads that share a reference: one routing on one corpus, with the fits against each measure of imbalance."""

    routing: str
    corpus: str
    found: tuple[ShiftFinding, ...]
    fits: tuple[ResidualFit, ...]

    @property
    def best(self) -> ResidualFit | None:
        """Against the measure that explains most of the measured shift; None with too few loads to say."""
        return best_measure(self.fits)

    @property
    def quoted(self) -> ResidualFit | None:
        """Against the shortfall, which a power law's residual is linear in; None with too few loads for a line."""
        return next((fit for fit in self.fits if fit.measure == SHORTFALL and fit.reason is None), None)


def residual_groups(summary: Summary) -> list[ResidualGroup]:
    """Of all loads that were measured and are not the even one; the largest group first."""
    groups: dict[tuple[str, str, str], list[ShiftFinding]] = {}
    for s in summary.shifts:
        c = s.comparison
        uneven = s.imbalance is not None and s.imbalance.variation > EVEN
        if uneven and c.ladder != SCALED_LOADS and s.shift.reason is None:
            groups.setdefault((s.routing, c.corpus, c.rule), []).append(s)
    return [
        ResidualGroup(
            routing=routing,
            corpus=corpus,
            found=tuple(found),
            fits=fit_residuals(
                [
                    ResidualPoint(
                        label=s.side.label, imbalance=s.imbalance, shift=s.shift.shift, residual=s.shift.residual
                    )
                    for s in found
                    if s.imbalance
                ]
            ),
        )
        for (routing, corpus, _), found in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


class _Fit(NamedTuple):
    group: ResidualGroup
    fit: ResidualFit


def residual_table(summary: Summary) -> Table:
    """Every shift: how uneven the load is, what was measured, what the theory says, and what is left over."""

    def figure(of: Callable[[Imbalance], float], digits: int = 2) -> Callable[[ShiftFinding], str]:
        # of the even load a shortfall may round to a little less than 0
        return lambda s: number_text(round(of(s.imbalance), 9) + 0.0, digits) if s.imbalance else NONE

    measures: dict[str, Callable[[ShiftFinding], str]] = {
        "coefficient of variation": figure(lambda i: i.variation),
        "normalized entropy": figure(lambda i: i.entropy, 3),
        "max/mean": figure(lambda i: i.peak),
        "shortfall (bits)": figure(lambda i: i.shortfall_bits),
    }
    cells: Cells[ShiftFinding] = {
        **asked_columns(summary.shifts),
        **measures,
        "shift of log2 sigma_0 [95 %]": lambda s: measured_text(s, s.shift.shift),
        "theory's": lambda s: NONE if s.shift.reason else f"{s.shift.theory:+.2f}",
        "residual [95 %]": lambda s: measured_text(s, s.shift.residual),
        "verdict": lambda s: s.shift.judge(s.comparison.tolerance).value if s.comparison.expected else NONE,
    }
    return make_table(
        "Residual of sigma_0 = measured - theory's shift (octaves)",
        summary.shifts,
        cells,
        numeric=(*measures, "theory's"),
        note=lambda s: s.shift.reason or "",
    )


def residual_fit_table(summary: Summary) -> Table:
    """Octaves of residual for each unit of imbalance, group by group."""
    rows = [_Fit(group, fit) for group in residual_groups(summary) for fit in group.fits]
    cells: Cells[_Fit] = {
        "routing": lambda r: routing_words(r.group.routing),
        "corpus": lambda r: r.group.corpus,
        "against": lambda r: r.fit.measure,
        "loads": lambda r: str(len(r.group.found)),
        "slope [95 %], through 0": lambda r: bounded_text(r.fit.slope),
        "scatter (octaves)": lambda r: number_text(r.fit.scatter),
        "ordinary slope [95 %]": lambda r: bounded_text(r.fit.ordinary),
        "its intercept": lambda r: number_text(r.fit.intercept),
        "robust slope [95 %]": lambda r: bounded_text(r.fit.robust),
        "explains of the residual": lambda r: f"{r.fit.explained:.0%}" if r.fit.reason is None else NONE,
        "explains of the shift": lambda r: f"{r.fit.shift_explained:.0%}" if r.fit.reason is None else NONE,
    }
    numeric = ("loads", "scatter (octaves)", "its intercept", "explains of the residual", "explains of the shift")
    caption = "The residual against each measure of imbalance (octaves for each unit of the measure)"
    return make_table(caption, rows, cells, numeric=numeric, note=lambda r: r.fit.reason or "")


def measured_text(found: ShiftFinding, interval: Interval) -> str:
    """An interval of a shift, or a dash where it has none."""
    return NONE if found.shift.reason else interval_text(interval)


def residual_lines(summary: Summary) -> list[str]:
    """One line for each routing and corpus: the slope to quote, and the measure that explains most of the shift."""
    return [_line(group) for group in residual_groups(summary) if group.quoted]


def _line(group: ResidualGroup) -> str:
    fit = group.quoted
    assert fit is not None
    loads = f"{len(group.found)} loads"
    where = f"{routing_words(group.routing)} routing on {group.corpus}"
    said = f"{where}: {bounded_text(fit.slope)} octaves for each bit of shortfall, {loads}"
    best = group.best
    if best is None:
        return f"{said}, too few to rank the measures of imbalance"
    return f"{said}; most of the measured shift ({best.shift_explained:.0%}) is explained by {best.measure}"
