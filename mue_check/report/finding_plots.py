"""Figures of what is found and not judged: the speed-up, and the routing variants."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mue_check.report.curve_plots import draw_interval
from mue_check.report.drift_plots import draw_rows
from mue_check.report.findings import DriftFinding, SpeedupFinding
from mue_check.report.format import in_words, times_text
from mue_check.report.palette import MARKERS, QUIET, WIDTH, Palette, heading, house_style, shorten

_BAND_REACH = 1.5
"""Octaves that an interval may add to the axis of a speed-up: that of two seeds would dwarf the lines."""

_TIMES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7, 10, 20, 50)


def plot_speedups(found: Sequence[SpeedupFinding], palette: Palette) -> Figure:
    """How many times faster each target of a ladder reaches a loss; training goes from left to right."""
    c = found[0].comparison
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        axes = figure.add_subplot()
        ends = [0.0]
        for at, f in enumerate(found):
            label = f.comparison.sides[-1].label
            colour, levels = palette.of(f.comparison, label), f.speedup.levels
            mean, low, high = np.array([(i.mean, i.low, i.high) for i in f.speedup.by_level]).T
            if np.isfinite([low, high]).all():
                low, high = np.maximum(low, mean.min() - _BAND_REACH), np.minimum(high, mean.max() + _BAND_REACH)
                axes.fill_between(levels, low, high, color=colour, alpha=0.15, linewidth=0)
                ends += [float(low.min()), float(high.max())]
            ends += [float(mean.min()), float(mean.max())]
            name = f"{shorten(label, 22)}: {times_text(f.speedup.overall)} times"
            axes.plot(levels, mean, color=colour, linewidth=1.6, marker=MARKERS[at % len(MARKERS)], label=name)
        axes.axhline(0, color=QUIET, linewidth=1)
        room = 0.1 * max(max(ends) - min(ends), 0.5)
        axes.set_ylim(min(ends) - room, max(ends) + room)
        axes.invert_xaxis()
        ticks = [times for times in _TIMES if min(ends) - room <= math.log2(times) <= max(ends) + room]
        axes.set_yticks([math.log2(times) for times in ticks], [f"{times:g}" for times in ticks])
        axes.set_xlabel("held-out loss reached (nats per token), falling as training goes on; bands: 95 % over seeds")
        axes.set_ylabel(f"steps of {shorten(c.sides[0].label, 16)} / steps of the target")
        figure.suptitle(f"Speed-up along {heading(c)}", x=0.01, ha="left")
        figure.legend(loc="outside lower center", ncols=min(len(found), 3), fontsize=9)
    return figure


def plot_routers(found: Sequence[DriftFinding], palette: Palette) -> Figure:
    """The drift along one ladder under each routing variant, one row for each router and target."""
    series = list(dict.fromkeys((d.comparison.corpus, d.comparison.rule) for d in found))
    rows = list(dict.fromkeys((d.comparison.router, d.side.label) for d in found))
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.6 + 0.42 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        draw_rows(axes, [f"{shorten(router, 32)}\n{shorten(label, 28)}" for router, label in reversed(rows)], found)
        for d in found:
            at = series.index((d.comparison.corpus, d.comparison.rule))
            row = len(rows) - 1 - rows.index((d.comparison.router, d.side.label))
            offset = (len(series) - 1) / 2 - at
            y, colour = row + offset * min(0.25, 0.7 / len(series)), palette.of(d.comparison, d.side.label)
            if d.drift.interval.n:
                draw_interval(axes, d.drift.interval, y, colour, marker=MARKERS[at % len(MARKERS)])
            else:
                axes.text(0, y, "unresolved", va="center", ha="center", fontsize=8.5, color=colour)
        axes.set_xlabel("drift (octaves of learning rate); band: tolerance; bars: 95 % interval over seeds")
        name = in_words(found[0].comparison.ladder)
        figure.suptitle(f"Drift of the optimum along {shorten(name, 30)} under each router", x=0.01, ha="left")
        if len(series) > 1:
            handles = [
                Line2D(
                    *([], []),
                    linestyle="",
                    color=QUIET,
                    marker=MARKERS[at % len(MARKERS)],
                    label=f"{shorten(corpus, 18)}, {shorten(rule, 24)}",
                )
                for at, (corpus, rule) in enumerate(series)
            ]
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3))
    return figure


def is_drawn(found: SpeedupFinding) -> bool:
    """Whether there is a loss that all its runs reach."""
    return found.speedup.overall.n > 0 and math.isfinite(found.speedup.overall.mean)
