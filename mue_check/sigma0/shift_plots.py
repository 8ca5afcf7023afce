"""Figures of the shift of sigma_0: its residual against imbalance, and the drift that goes with it."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mue_check.judge.interval import Interval
from mue_check.report.format import bounded_text, routing_words
from mue_check.report.palette import MARKERS, QUIET, WIDTH, house_style, shorten
from mue_check.sigma0.gamma_plots import COLORS, cross, ladder_look, short_ladder
from mue_check.sigma0.imbalance import MEASURES
from mue_check.sigma0.kappa import KappaFit, KappaPoint
from mue_check.sigma0.residual import ResidualGroup


def plot_residuals(groups: Sequence[ResidualGroup]) -> Figure:
    """One panel for each measure of imbalance: the residual of every load, and the weighted line of each routing."""
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
        handles = [_group_handle(group, corpora.index(group.corpus)) for group in groups]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _draw_group(axes: Axes, group: ResidualGroup, measure: str, corpus: int) -> None:
    color = COLORS[routing_words(group.routing)]
    (fit,) = (f for f in group.fits if f.measure == measure)
    x = [MEASURES[measure](imbalance) for imbalance, _ in group.loads]
    for at, (_, shift) in zip(x, group.loads, strict=True):
        cross(axes, (at, shift.residual.mean), color, y=shift.residual, marker=MARKERS[corpus % len(MARKERS)])
    if fit.reason is None:
        ends = np.array([0, max(x) * 1.05])
        axes.plot(ends, fit.slope.mean * ends, color=color, linewidth=1.6, linestyle="-" if corpus == 0 else ":")
        if corpus == 0 and math.isfinite(fit.slope.half_width):
            axes.fill_between(ends, fit.slope.low * ends, fit.slope.high * ends, color=color, alpha=0.1, linewidth=0)


def _residual_title(groups: Sequence[ResidualGroup]) -> str:
    lines = ["Residual of sigma_0: measured - theory's shift of log2 sigma_0 (dashed: the theory holds)"]
    for group in groups:
        if fit := group.quoted:
            where = f"{routing_words(group.routing)} routing on {shorten(group.corpus, 20)}"
            lines.append(f"{where}: {bounded_text(fit.slope)} octaves per bit of shortfall")
    return "\n".join(lines)


def _group_handle(group: ResidualGroup, corpus: int) -> Line2D:
    routing = routing_words(group.routing)
    return Line2D(
        *([], []),
        color=COLORS[routing],
        marker=MARKERS[corpus % len(MARKERS)],
        linestyle="-" if corpus == 0 else ":",
        label=f"{routing} routing, {shorten(group.corpus, 20)} ({len(group.loads)} loads)",
    )


def plot_kappa(points: Sequence[KappaPoint], fit: KappaFit | str) -> Figure:
    """Drift against shift of every point with the budget's line and its 95 % band; below, the distance from it."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
        grid = figure.add_gridspec(2, 1, height_ratios=[2.4, 1])
        above = figure.add_subplot(grid[0])
        below = figure.add_subplot(grid[1], sharex=above)
        for axes in (above, below):
            axes.axhline(0, color=QUIET, linewidth=1)
        if isinstance(fit, KappaFit):
            _draw_line(above, below, fit, points)
        for p in points:
            color, marker = ladder_look(p.ladder)
            x, y = _interval(p.shift, p.shift_se), _interval(p.drift, p.drift_se)
            solid = isinstance(fit, KappaFit) and p in fit.points
            cross(above, (p.shift, p.drift), color, x=x, y=y, marker=marker, solid=solid)
            if isinstance(fit, KappaFit):
                rest = p.drift - fit.kappa.mean * p.shift - fit.intercept.mean
                cross(below, (p.shift, rest), color, y=_interval(rest, p.drift_se), marker=marker, solid=solid)
        above.tick_params(labelbottom=False)
        above.set_ylabel("drift of the optimal\nlearning rate (octaves)")
        below.set_ylabel("drift - line\n(octaves)")
        below.set_xlabel(
            "shift of log2 sigma_0 (octaves); bars: standard error; band: 95 % of the line; open: not fitted"
        )
        line = fit
        if isinstance(fit, KappaFit):
            line = f"kappa {bounded_text(fit.kappa)} under loads, through 0, scatter {fit.tau:.2f} octave"
        figure.suptitle(f"Drift against the shift of sigma_0: {line}", x=0.01, ha="left", fontsize=11)
        handles = [
            Line2D([], [], color=color, marker=marker, linestyle="", label=shorten(short_ladder(ladder), 24))
            for ladder, (color, marker) in {p.ladder: ladder_look(p.ladder) for p in points}.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9)
    return figure


def _draw_line(above: Axes, below: Axes, fit: KappaFit, points: Sequence[KappaPoint]) -> None:
    shifts = [0.0, *(p.shift for p in points)]
    x = np.linspace(min(shifts) - 0.05, max(shifts) + 0.05, 60)
    band = [fit.predict(float(at)) for at in x]
    mean, low, high = np.array([(b.mean, b.low, b.high) for b in band]).T
    above.plot(x, mean, color=QUIET, linewidth=1.6)
    above.fill_between(x, low, high, color=QUIET, alpha=0.13, linewidth=0)
    below.fill_between(x, low - mean, high - mean, color=QUIET, alpha=0.13, linewidth=0)


def _interval(mean: float, se: float) -> Interval:
    return Interval(mean, mean - se, mean + se, 2)
