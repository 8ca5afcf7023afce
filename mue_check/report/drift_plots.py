"""Figures of the drift of the optimum: along an axis, and of the controls."""

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from mue_check.judge.interval import Interval
from mue_check.report.curve_plots import draw_interval
from mue_check.report.palette import BAND, MARKERS, QUIET, WIDTH, Palette, house_style, plain, shorten
from mue_check.report.summary import DriftFinding
from mue_check.report.tables import interval_text

_CHARACTERS = 110
"""Of tick labels beside each other across a figure."""


def plot_drifts(found: Sequence[DriftFinding], palette: Palette) -> Figure:
    """Mean drift of each target with its interval against the axis's sizes, one marker shape for each corpus."""
    series = list(dict.fromkeys((d.comparison.corpus, d.comparison.rule) for d in found))
    one_rule = len({rule for _, rule in series}) == 1
    names = [shorten(c, 18) if one_rule else f"{shorten(c, 18)}, {plain(r)}" for c, r in series]
    first = found[0].comparison.sides[0]
    sizes = {first.label: first.size} | {d.comparison.sides[-1].label: d.comparison.sides[-1].size for d in found}
    places = _places(sizes)
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        axes = figure.add_subplot()
        ticks = {label: [shorten(label, 16)] for label in sizes}
        ticks[first.label].append("reference")
        ordered = sorted(places.values())
        gap = min((b - a for a, b in pairwise(ordered)), default=1.0)
        room = int(_CHARACTERS * gap / (ordered[-1] - ordered[0] + gap))
        for d in found:
            label = d.comparison.sides[-1].label
            at = series.index((d.comparison.corpus, d.comparison.rule))
            x = places[label] + gap * (at - (len(series) - 1) / 2) * min(0.26, 0.6 / len(series))
            left = at == 0 and len(series) > 1
            _mark(axes, x, d.drift.interval, palette[label], MARKERS[at % len(MARKERS)], left=left)
            said = d.drift.verdict.value if d.drift.interval.n else "unresolved"
            ticks[label] += textwrap.wrap(said if len(series) == 1 else f"{names[at]}: {said}", max(room, 12))
        axes.plot(places[first.label], 0, marker="o", color=palette[first.label], markersize=7)
        _frame(axes, found)
        axes.set_xticks(list(places.values()), ["\n".join(ticks[label]) for label in places], fontsize=9)
        axes.set_xlim(ordered[0] - gap / 2, ordered[-1] + gap / 2)
        rule = f", rule {plain(series[0][1])}" if one_rule else ""
        figure.suptitle(f"Drift of the optimum along {plain(found[0].comparison.axis)}{rule}", x=0.01, ha="left")
        if len(series) > 1:
            handles = [
                Line2D([], [], color=QUIET, linestyle="", marker=MARKERS[at % len(MARKERS)], label=name)
                for at, name in enumerate(names)
            ]
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
    return figure


def plot_controls(found: Sequence[DriftFinding], palette: Palette) -> Figure:
    """The drift of every control, one row each, with the verdict it has and the one it should have."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.5 + 0.55 * len(found)), layout="constrained")
        axes = figure.add_subplot()
        labels = []
        for row, d in enumerate(reversed(found)):
            c = d.comparison
            if d.drift.interval.n:
                draw_interval(axes, d.drift.interval, row, palette[c.sides[-1].label])
            labels.append(f"{shorten(c.name, 44)}\n{d.drift.verdict.value}, expected {plain(c.expected)}")
        for tolerance in sorted({d.comparison.tolerance for d in found}):
            axes.axvspan(-tolerance, tolerance, color=BAND, alpha=0.13, linewidth=0)
        axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
        reach = _reach(found)
        axes.set_xlim(-reach, reach)
        axes.set_yticks(range(len(labels)), labels, fontsize=9)
        axes.set_ylim(-0.6, len(labels) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("drift (octaves of learning rate); band: tolerance")
        right = sum(d.drift.verdict == d.comparison.expected for d in found)
        figure.suptitle(f"Controls: {right} of {len(found)} as expected", x=0.01, ha="left")
    return figure


def _places(sizes: dict[str, int]) -> dict[str, float]:
    """log2 of the sizes; ranks where two rungs share a size, as a dense model and one of one activated expert do."""
    ordered = sorted(sizes, key=lambda label: sizes[label])
    distinct = len(set(sizes.values())) == len(sizes) and min(sizes.values()) > 0
    return {label: math.log2(sizes[label]) if distinct else float(at) for at, label in enumerate(ordered)}


def _mark(axes: Axes, x: float, interval: Interval, colour: str, marker: str, *, left: bool) -> None:
    if not interval.n:
        return
    if math.isfinite(interval.half_width):
        axes.errorbar(x, interval.mean, yerr=interval.half_width, color=colour, capsize=5, linewidth=2)
    axes.plot(x, interval.mean, marker=marker, markersize=8, color=colour, zorder=4)
    number = interval_text(interval).split(" ")[0]
    axes.annotate(
        number,
        *((x, interval.mean), (-9 if left else 9, 0)),
        ha="right" if left else "left",
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=colour,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


def _frame(axes: Axes, found: Sequence[DriftFinding]) -> None:
    tolerances = sorted({d.comparison.tolerance for d in found})
    for tolerance in tolerances:
        axes.axhspan(-tolerance, tolerance, color=BAND, alpha=0.13, linewidth=0)
    axes.axhline(0, color=QUIET, linewidth=1, zorder=1)
    reach = _reach(found)
    axes.set_ylim(-reach, reach)
    axes.set_ylabel("drift (octaves of learning rate)")
    band = " and ".join(f"{tolerance:g}" for tolerance in tolerances)
    axes.set_xlabel(f"band: tolerance of +- {band} octave; bars: 95 % interval over seeds")
    axes.grid(visible=False, axis="x")


def _reach(found: Sequence[DriftFinding]) -> float:
    """Half the drift axis: all means and the tolerance, and of the intervals what does not dwarf them."""
    means = [abs(d.drift.interval.mean) for d in found if d.drift.interval.n]
    core = max([1.5 * d.comparison.tolerance for d in found] + [1.3 * mean for mean in means])
    ends = [abs(end) for d in found for end in (d.drift.interval.low, d.drift.interval.high) if math.isfinite(end)]
    return min(max([core, *(1.1 * end for end in ends)]), 3 * core)
