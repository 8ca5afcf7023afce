"""Figures of the shift of sigma_0: its residual against imbalance, the drift that goes with it, and forecasts."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mue_check.judge.interval import Interval
from mue_check.judge.verdict import Verdict
from mue_check.report.findings import ForecastFinding
from mue_check.report.format import bounded_text, routing_words
from mue_check.report.palette import MARKERS, QUIET, TARGETS, WIDTH, house_style, shorten
from mue_check.sigma0.kappa import KappaFit, KappaPoint
from mue_check.sigma0.report.colors import ladder_look, ladder_name, routing_colour
from mue_check.sigma0.report.findings import KappaFits
from mue_check.sigma0.report.residual_tables import ResidualGroup
from mue_check.sigma0.residual import MEASURES, ResidualFit

FORECAST = TARGETS[0]
"""Forecasts are of learned routing, and have its colour."""


def plot_residuals(groups: Sequence[ResidualGroup]) -> Figure:
    """One panel for each measure of imbalance: every load's residual, and the line that is quoted of each routing."""
    corpora = list(dict.fromkeys(g.corpus for g in groups))
    with house_style():
        figure = Figure(figsize=(WIDTH, 6.8), layout="constrained")
        first: Axes | None = None
        for at, measure in enumerate(MEASURES):
            axes = figure.add_subplot(2, 2, at + 1, sharey=first)
            first = first or axes
            axes.axhline(0, color=QUIET, linewidth=1, linestyle="--")
            for group in groups:
                _draw_group(axes, group, measure, corpora.index(group.corpus))
            axes.set_xlabel(measure)
            if at % 2 == 0:
                axes.set_ylabel("residual (octaves)")
        figure.suptitle(_residual_title(groups), x=0.01, ha="left", fontsize=11)
        figure.legend(handles=_group_handles(groups, corpora), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _draw_group(axes: Axes, group: ResidualGroup, measure: str, corpus: int) -> None:
    colour = routing_colour(routing_words(group.routing))
    (fit,) = (f for f in group.fits if f.measure == measure)
    x = [MEASURES[measure](s.imbalance) for s in group.found if s.imbalance]
    for at, s in zip(x, group.found, strict=True):
        _cross(axes, (at, s.shift.residual.mean), colour, y=s.shift.residual, marker=MARKERS[corpus % len(MARKERS)])
    if fit.reason is None:
        end = max(x) * 1.05
        line, *_ = axes.plot([0, end], [0, fit.slope.mean * end], color=colour, linewidth=1.6)
        line.set_linestyle("-" if corpus == 0 else ":")
        if corpus == 0 and math.isfinite(fit.slope.half_width):
            axes.fill_between(
                [0, end], [0, fit.slope.low * end], [0, fit.slope.high * end], color=colour, alpha=0.1, linewidth=0
            )


def _residual_title(groups: Sequence[ResidualGroup]) -> str:
    lines = ["Residual of sigma_0: measured - theory's shift of log2 sigma_0 (dashed: the theory holds)"]
    for group in groups:
        fit: ResidualFit | None = group.quoted
        if fit is not None:
            where = f"{routing_words(group.routing)} routing on {shorten(group.corpus, 20)}"
            lines.append(f"{where}: {bounded_text(fit.slope)} octaves for each bit of shortfall")
    return "\n".join(lines)


def _group_handles(groups: Sequence[ResidualGroup], corpora: Sequence[str]) -> list[Line2D]:
    return [
        Line2D(
            *([], []),
            color=routing_colour(routing_words(g.routing)),
            marker=MARKERS[corpora.index(g.corpus) % len(MARKERS)],
            linestyle="-" if g.corpus == corpora[0] else ":",
            label=f"{routing_words(g.routing)} routing, {shorten(g.corpus, 20)} ({len(g.found)} loads)",
        )
        for g in groups
    ]


def plot_kappa(fits: KappaFits) -> Figure:
    """Drift against shift of every arm with the budget's line and its 95 % band; below, what the line leaves over."""
    fit, points = fits.budget, fits.every.points
    with house_style():
        figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
        grid = figure.add_gridspec(2, 1, height_ratios=[2.4, 1])
        above = figure.add_subplot(grid[0])
        below = figure.add_subplot(grid[1], sharex=above)
        for axes in (above, below):
            axes.axhline(0, color=QUIET, linewidth=1)
        if fit.reason is None:
            _draw_line(above, below, fit, points)
        for p in points:
            colour, marker = ladder_look(p.ladder)
            x, y = _interval(p.shift, p.shift_se), _interval(p.drift, p.drift_se)
            solid = p in fit.points
            _cross(above, (p.shift, p.drift), colour, x=x, y=y, marker=marker, solid=solid)
            if fit.reason is None:
                left = p.drift - fit.kappa.mean * p.shift - fit.intercept.mean
                _cross(below, (p.shift, left), colour, y=_interval(left, p.drift_se), marker=marker, solid=solid)
        above.tick_params(labelbottom=False)
        above.set_ylabel("drift of the optimal\nlearning rate (octaves)")
        below.set_ylabel("drift - line\n(octaves)")
        below.set_xlabel(
            "shift of log2 sigma_0 (octaves); bars: standard error; band: 95 % of the line; open: not fitted"
        )
        said = fit.reason or f"kappa {bounded_text(fit.kappa)} under loads, through 0, scatter {fit.tau:.2f} octave"
        figure.suptitle(f"Drift against the shift of sigma_0: {said}", x=0.01, ha="left", fontsize=11)
        names = dict.fromkeys(p.ladder for p in points)
        figure.legend(handles=[_ladder_handle(n) for n in names], loc="outside lower center", ncols=5, fontsize=9)
    return figure


def _draw_line(above: Axes, below: Axes, fit: KappaFit, points: Sequence[KappaPoint]) -> None:
    shifts = [0.0, *(p.shift for p in points)]
    x = np.linspace(min(shifts) - 0.05, max(shifts) + 0.05, 60)
    band = [fit.predict(float(at)) for at in x]
    mean, low, high = np.array([(b.mean, b.low, b.high) for b in band]).T
    above.plot(x, mean, color=QUIET, linewidth=1.6)
    above.fill_between(x, low, high, color=QUIET, alpha=0.13, linewidth=0)
    below.fill_between(x, low - mean, high - mean, color=QUIET, alpha=0.13, linewidth=0)


def _ladder_handle(ladder: str) -> Line2D:
    colour, marker = ladder_look(ladder)
    return Line2D([], [], color=colour, marker=marker, linestyle="", label=shorten(ladder_name(ladder), 24))


def _interval(mean: float, se: float) -> Interval:
    return Interval(mean, mean - se, mean + se, 2)


def plot_forecasts(found: Sequence[ForecastFinding], title: str) -> Figure:
    """Measured against foretold drift of each load that no fit has seen: on the diagonal they agree."""
    known = [(f, f.forecast.forecast, f.drift.interval) for f in found if f.forecast and f.drift.reason is None]
    with house_style():
        figure = Figure(figsize=(WIDTH, max(4.6, 2.2 + 0.34 * len(known))), layout="constrained")
        left, right = figure.subplots(1, 2)
        ends = [0.0]
        for row, (f, foretold, measured) in enumerate(reversed(known)):
            inside = f.verdict is Verdict.PASS
            _cross(left, (foretold.mean, measured.mean), FORECAST, x=foretold, y=measured, solid=inside)
            right.barh(row, 2 * foretold.half_width, left=foretold.low, height=0.7, color=QUIET, alpha=0.16)
            right.plot([foretold.mean] * 2, [row - 0.35, row + 0.35], color=QUIET, linewidth=1.6)
            _cross(right, (measured.mean, row), FORECAST, x=measured, solid=inside)
            ends += [v for i in (foretold, measured) for v in (i.low, i.high) if math.isfinite(v)]
        room = 0.06 * max(max(ends) - min(ends), 0.1)
        low, high = min(ends) - room, max(ends) + room
        left.plot([low, high], [low, high], color=QUIET, linewidth=1.2, linestyle="--")
        for axes in (left, right):
            axes.set_xlim(low, high)
            axes.axvline(0, color=QUIET, linewidth=0.8, zorder=1)
        left.axhline(0, color=QUIET, linewidth=0.8, zorder=1)
        left.set_ylim(low, high)
        left.set_xlabel("foretold drift (octaves)")
        left.set_ylabel("measured drift (octaves)")
        right.set_yticks(range(len(known)), [shorten(f.side.label, 18) for f, *_ in reversed(known)], fontsize=9)
        right.set_ylim(-0.6, len(known) - 0.4)
        right.grid(visible=False, axis="y")
        right.set_xlabel("drift (octaves)")
        figure.suptitle(f"Loads that no fit has seen, bars: 95 % interval\n{title}", x=0.01, ha="left", fontsize=11)
        handles: list[Line2D | Patch] = [
            Line2D([], [], color=FORECAST, marker="o", linestyle="", label="measured, inside"),
            Line2D([], [], color=FORECAST, marker="o", markerfacecolor="white", linestyle="", label="outside"),
            Patch(color=QUIET, alpha=0.3, label="foretold for such a measurement"),
            Line2D([], [], color=QUIET, linestyle="--", label="foretold = measured"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _cross(
    axes: Axes,
    at: tuple[float, float],
    colour: str,
    *,
    x: Interval | None = None,
    y: Interval | None = None,
    marker: str = "o",
    solid: bool = True,
) -> None:
    """A marker with the bars that are finite."""
    bars = [i.half_width if i and math.isfinite(i.half_width) else 0.0 for i in (x, y)]
    axes.errorbar(*at, xerr=bars[0], yerr=bars[1], color=colour, capsize=2.5, linewidth=1.1, alpha=0.75)
    inside = colour if solid else "white"
    axes.plot(*at, marker=marker, markersize=6, color=colour, markerfacecolor=inside, zorder=4)
