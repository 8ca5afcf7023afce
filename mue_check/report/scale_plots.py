"""Figures of activation scales along a ladder, and of the first steps of training."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter
from scipy import stats

from mue_check.judge.interval import CONFIDENCE
from mue_check.judge.law import LawResult, log2_levels
from mue_check.report.palette import BAND, MARKERS, QUIET, WIDTH, Palette, house_style, plain, shorten
from mue_check.report.summary import EarlyFinding, LawsFinding
from mue_check.report.tables import interval_text

_PANELS = 2
"""Panels side by side: a law's statement needs the width."""


def plot_laws(found: LawsFinding, palette: Palette) -> Figure:
    """One panel for each law of a ladder: log2 of the quantity against log2 of the size, a point per seed."""
    c = found.comparison
    rows = -(-len(found.results) // _PANELS)
    with house_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 3.5 * rows), layout="constrained")
        for at, result in enumerate(found.results):
            _draw_law(figure.add_subplot(rows, _PANELS, at + 1), found, result, palette)
        handles = [
            Line2D([], [], color=QUIET, linewidth=1.6, label="fit with 95 % interval, or mean"),
            Line2D([], [], color=QUIET, linestyle="--", linewidth=1.2, label="the law; band: its tolerance"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        head = f"Activation scales along {plain(c.axis)} on {shorten(c.corpus, 30)}, rule {plain(c.rule)}"
        figure.suptitle(head, x=0.01, ha="left")
    return figure


def _draw_law(axes: Axes, found: LawsFinding, result: LawResult, palette: Palette) -> None:
    law, sides = result.law, found.comparison.sides
    x = np.log2([float(side.size) for side in sides])
    # what is zero or not finite has no place on a log scale; the verdict speaks of it
    levels = [values[np.isfinite(values)] for values in (log2_levels(law, t) for t in found.tables)]
    for side, at, values in zip(sides, x, levels, strict=True):
        axes.plot(np.full(values.shape, at), values, linestyle="", marker="o", color=palette[side.label], alpha=0.6)
    middle = np.array([values.mean() if values.size else np.nan for values in levels])
    span = np.linspace(x.min(), x.max(), 3)
    allowed = (law.expected - law.tolerance, law.expected, law.expected + law.tolerance)
    if law.form == "exponent":
        pivot, height = x.mean(), float(np.nanmean(middle)) if np.isfinite(middle).any() else np.nan
        lines = [height + slope * (span - pivot) for slope in allowed]
        if result.interval.n:
            low, high = (height + slope * (span - pivot) for slope in (result.interval.low, result.interval.high))
            if np.isfinite([low, high]).all():
                axes.fill_between(span, low, high, color=QUIET, alpha=0.25, linewidth=0)
            axes.plot(span, height + result.interval.mean * (span - pivot), color=QUIET, linewidth=1.6)
    else:
        lines = [middle[0] + np.full(span.shape, off) for off in allowed]
        axes.plot(x, middle, color=QUIET, linewidth=1.6)
    axes.fill_between(span, lines[0], lines[2], color=BAND, alpha=0.13, linewidth=0)
    axes.plot(span, lines[1], color=QUIET, linestyle="--", linewidth=1.2)
    _widen(axes, 1.0 if law.form == "exponent" else 6 * law.tolerance)
    names = {at: " / ".join(plain(s.label) for s, other in zip(sides, x, strict=True) if other == at) for at in x}
    axes.set_xticks(list(names), list(names.values()))
    axes.margins(x=0.12)
    axes.set_ylabel(f"log2 {'RMS' if law.quantity == 'rms' else 'RMS of the change'}")
    what = "slope" if law.form == "exponent" else f"log2 ratio, {plain(result.worst)}"
    measured = f"{what} {interval_text(result.interval)}: {result.verdict.value}"
    axes.set_title("\n".join([*textwrap.wrap(plain(law.statement), 52), measured]))


def _widen(axes: Axes, least: float) -> None:
    """A y axis of at least ``least`` octaves, so that noise does not look like a slope."""
    low, high = axes.get_ylim()
    if high - low < least:
        axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)


def plot_early(found: Sequence[EarlyFinding], palette: Palette) -> Figure:
    """log2 of target over reference loss against the step, mean and 95 % band over seeds, every target of a ladder."""
    c = found[0].comparison
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for at, f in enumerate(found):
            label = f.comparison.sides[-1].label
            x, mean, colour = f.steps + 1.0, f.ratio.mean(axis=0), palette[label]
            seeds = len(f.ratio)
            if seeds > 1:
                half = stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1) * f.ratio.std(axis=0, ddof=1) / np.sqrt(seeds)
                axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
            said = (
                f"{shorten(label, 22)}: trend {interval_text(f.early.trend, 4)} per doubling, {f.early.verdict.value}"
            )
            axes.plot(
                x,
                mean,
                color=colour,
                linewidth=1.6,
                label=said,
                marker=MARKERS[at % len(MARKERS)],
                markevery=max(1, len(x) // 8),
                markersize=4,
            )
        axes.axhline(0, color=QUIET, linewidth=1)
        axes.set_xscale("log", base=2)
        last = max(float(f.steps.max()) for f in found) + 1
        axes.set_xlim(0.9, 1.15 * last)  # said, for a curve that is not finite sets no limits
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("step; bands: 95 % interval over seeds")
        axes.set_ylabel("log2(target loss / reference loss)")
        figure.suptitle(
            f"First steps along {plain(c.axis)} on {shorten(c.corpus, 30)}, rule {plain(c.rule)}: "
            f"below 0 the target is ahead of {shorten(c.sides[0].label, 16)}",
            x=0.01,
            ha="left",
            fontsize=10.5,
        )
        figure.legend(loc="outside lower center", ncols=1 if len(found) < 4 else 2, fontsize=9)
    return figure
