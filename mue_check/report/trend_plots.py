"""Figure of a trend: the drifts of a ladder, the line through them, and where it would lead."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mue_check.report.findings import DriftFinding, TrendFinding
from mue_check.report.format import in_words, interval_text
from mue_check.report.palette import BAND, BAND_ALPHA, QUIET, WIDTH, Palette, heading, house_style

_PANELS = 2


def plot_trends(found: Sequence[TrendFinding], palette: Palette) -> Figure:
    """One panel for each corpus, rule and router: drifts, each seed's line, and the mean's extrapolation."""
    columns = min(len(found), _PANELS)
    rows = -(-len(found) // columns)
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.3 + 3.6 * rows), layout="constrained")
        for at, trend in enumerate(found):
            _draw(figure.add_subplot(rows, columns, at + 1), trend, palette)
        handles = [
            Line2D([], [], color=QUIET, linewidth=0.8, alpha=0.6, label="one seed"),
            Line2D([], [], color=QUIET, linewidth=1.8, label="mean"),
            Line2D([], [], color=QUIET, linewidth=1.8, linestyle="--", label="extrapolated"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        head = (
            f"Trend of the drift along {in_words(found[0].comparison.ladder)}\n"
            "The interval of the extrapolation holds the seeds' spread only, not the doubt whether the line goes on."
        )
        figure.suptitle(head, x=0.01, ha="left", fontsize=10.5)
    return figure


def _draw(axes: Axes, found: TrendFinding, palette: Palette) -> None:
    c, first, end = found.comparison, math.log2(found.reference_size), math.log2(found.trend.size)
    resolved = [d for d in found.drifts if d.drift.reason is None]
    measured = {math.log2(d.side.size): d for d in resolved}
    last = max(measured)
    axes.axhspan(-c.tolerance, c.tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
    axes.axhline(0, color=QUIET, linewidth=1, zorder=1)
    for slope in _slopes(resolved, first):
        axes.plot([first, end], [0, slope * (end - first)], color=QUIET, linewidth=0.8, alpha=0.35)
    mean = found.trend.slope.mean
    axes.plot([first, last], [0, mean * (last - first)], color=QUIET, linewidth=1.8)
    axes.plot([last, end], [mean * (last - first), mean * (end - first)], color=QUIET, linewidth=1.8, linestyle="--")
    for x, d in measured.items():
        colour = palette.of(d.comparison, d.side.label)
        axes.errorbar(x, d.drift.interval.mean, yerr=_bar(d.drift.interval.half_width), color=colour, capsize=4)
        axes.plot(x, d.drift.interval.mean, marker="o", markersize=7, color=colour, zorder=4)
    axes.plot(first, 0, marker="o", markersize=7, color=palette.of(c, c.sides[0].label), zorder=4)
    foretold = found.trend.at_size
    axes.errorbar(end, foretold.mean, yerr=_bar(foretold.half_width), color=QUIET, capsize=4, linestyle="")
    axes.plot(end, foretold.mean, marker="o", markersize=8, color=QUIET, markerfacecolor="white", zorder=4)
    ticks = {first: found.reference_size} | {x: d.side.size for x, d in measured.items()} | {end: found.trend.size}
    axes.set_xticks(list(ticks), [f"{size:g}" for size in ticks.values()])
    axes.set_xlabel("experts N")
    axes.set_ylabel("drift (octaves)")
    axes.set_title(
        f"{heading(c)}\n{interval_text(found.trend.slope, 3)} octave per doubling\n"
        f"N = {found.trend.size:g}: {interval_text(foretold)}",
        fontsize=9,
    )


def _slopes(found: Sequence[DriftFinding], first: float) -> NDArray[np.float64]:
    """Per seed the least-squares line through the reference, as ``judge.trend`` fits it."""
    x = np.array([math.log2(d.side.size) - first for d in found])
    seeds = [seed for seed in found[0].drift.by_seed if all(seed in d.drift.by_seed for d in found)]
    drifts = np.array([[d.drift.by_seed[seed] for seed in seeds] for d in found])
    return np.asarray(x @ drifts / (x @ x), dtype=np.float64)


def _bar(half_width: float) -> float:
    return half_width if math.isfinite(half_width) else 0.0
