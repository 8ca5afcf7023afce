"""Figures of the drift of the optimum: along a ladder, and of the controls."""

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from mue_check.judge.interval import Interval
from mue_check.judge.verdict import meets
from mue_check.questions.comparison import DEFAULT_ROUTER, Comparison
from mue_check.questions.display import Palette, count_text, knob_name
from mue_check.questions.drift import DriftFinding
from mue_check.report.format import in_words, interval_text
from mue_check.report.palette import (
    BAND,
    BAND_ALPHA,
    MARKERS,
    QUIET,
    RESIDUAL_ALPHA,
    WIDTH,
    arms_of,
    draw_interval,
    house_style,
    plain,
    shorten,
)

_CHARACTERS = 110
"""Characters of tick labels that fit across a figure."""
_CROWD = 3
"""With more points than this at one target there is no room for their numbers."""
_FILLS: tuple[Literal["full", "none", "left", "right"], ...] = ("full", "none", "left", "right")


class _Series(NamedTuple):
    """One rule on one corpus. Of several rules the marker shows the rule and the fill the corpus; else the marker
    shows the corpus."""

    corpus: str
    rule: str
    name: str
    marker: str
    fill: Literal["full", "none", "left", "right"]


def plot_drifts(found: Sequence[DriftFinding], palette: Palette) -> Figure:
    """Mean drift of each target with its interval against the ladder's sizes; rules and corpora side by side."""
    series = _series_of([d.comparison for d in found])
    at_of = {(s.corpus, s.rule): at for at, s in enumerate(series)}
    c, first = found[0].comparison, found[0].comparison.sides[0]
    places = _places({first.label: first.size} | {d.side.label: d.side.size for d in found})
    ordered = sorted(places.values())
    gap = min((b - a for a, b in pairwise(ordered)), default=1.0)
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        axes = figure.add_subplot()
        _frame(axes, found)
        for d in found:
            at = at_of[d.comparison.corpus, d.comparison.rule]
            x = places[d.side.label] + gap * (at - (len(series) - 1) / 2) * min(0.26, 0.7 / len(series))
            _mark(axes, x, d.drift.interval, palette.of(d.comparison, d.side.label), series[at])
            if len(series) <= _CROWD and math.isfinite(d.drift.interval.mean):
                left = at == 0 and len(series) > 1
                _number(axes, x, d.drift.interval, palette.of(d.comparison, d.side.label), left=left)
        # once for each target: the bands of several rules and corpora would overlap and look darker
        stretches = [(d.side.label, d.comparison.residual_edge, d.comparison.residual) for d in found]
        for label, edge, residual in dict.fromkeys(stretch for stretch in stretches if stretch[2]):
            corner = (places[label] - gap / 2, edge)
            axes.add_patch(Rectangle(corner, gap, residual, color=BAND, alpha=RESIDUAL_ALPHA, linewidth=0, zorder=0))
        axes.plot(places[first.label], 0, marker="o", color=palette.of(c, first.label), markersize=7)
        room = max(int(_CHARACTERS * gap / (ordered[-1] - ordered[0] + gap)), 12)
        ticks = {label: "\n".join(_tick(label, found, series, room)) for label in places}
        axes.set_xticks(list(places.values()), [ticks[label] for label in places], fontsize=9)
        axes.set_xlim(ordered[0] - gap / 2, ordered[-1] + gap / 2)
        figure.suptitle(_title(c, series), x=0.01, ha="left")
        handles: list[Line2D | Patch] = []
        if len(series) > 1:
            handles = [
                Line2D([], [], color=QUIET, linestyle="", marker=s.marker, fillstyle=s.fill, label=s.name)
                for s in series
            ]
        if any(d.comparison.residual for d in found):
            handles.append(Patch(color=BAND, alpha=2 * RESIDUAL_ALPHA, label="residual of the approximate law"))
        if handles:
            figure.legend(
                handles=handles,
                loc="outside lower center",
                ncols=4 if max(len(str(h.get_label())) for h in handles) < 25 else 2,
            )
    return figure


def _series_of(comparisons: Sequence[Comparison]) -> list[_Series]:
    corpora = list(dict.fromkeys(c.corpus for c in comparisons))
    rules = list(dict.fromkeys(c.rule for c in comparisons))
    series = []
    for corpus, rule in dict.fromkeys((c.corpus, c.rule) for c in comparisons):
        at = rules.index(rule) if len(rules) > 1 else corpora.index(corpus)
        fill = _FILLS[corpora.index(corpus) % len(_FILLS)] if len(rules) > 1 else "full"
        names = [shorten(rule, 44)] * (len(rules) > 1) + [shorten(corpus, 18)] * (len(corpora) > 1)
        series.append(_Series(corpus, rule, ", ".join(names), MARKERS[at % len(MARKERS)], fill))
    return series


def _title(c: Comparison, series: Sequence[_Series]) -> str:
    title = f"Drift of the optimal {knob_name(c.knob)} along {shorten(in_words(c.ladder), 40)}"
    if len({s.rule for s in series}) == 1:
        title += f", rule {shorten(c.rule, 24)}"
    if c.router != DEFAULT_ROUTER:
        title += f",\nrouter {shorten(c.router, 60)}"
    return title


def _tick(label: str, found: Sequence[DriftFinding], series: Sequence[_Series], room: int) -> list[str]:
    """A rung's name and its verdicts; only their counts where there are many."""
    own = [d for d in found if d.side.label == label]
    if not own:
        return [shorten(label, 16), "reference"]
    if len(series) > _CROWD:
        lines = [count_text(d.drift.verdict for d in own)]
    else:
        names = {(s.corpus, s.rule): f"{s.name}: " if s.name else "" for s in series}
        words = [d.drift.verdict.value if math.isfinite(d.drift.interval.mean) else "unresolved" for d in own]
        lines = [names[d.comparison.corpus, d.comparison.rule] + word for d, word in zip(own, words, strict=True)]
    return [shorten(label, 16), *(line for text in lines for line in textwrap.wrap(text, room))]


def plot_controls(found: Sequence[DriftFinding], palette: Palette) -> Figure:
    """The drift of every control, one row each, with its verdict and the expected one."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.5 + 0.55 * len(found)), layout="constrained")
        axes = figure.add_subplot()
        labels = []
        for row, d in enumerate(reversed(found)):
            c = d.comparison
            if math.isfinite(d.drift.interval.mean):
                draw_interval(axes, d.drift.interval, row, palette.of(c, d.side.label))
            labels.append(f"{shorten(c.name, 44)}\n{d.drift.verdict.value}, expected {plain(c.expected)}")
        draw_rows(axes, labels, found)
        axes.set_xlabel("drift (octaves); band: tolerance")
        right = sum(meets(d.drift.verdict, d.comparison.expected) for d in found)
        figure.suptitle(f"Controls: {right} of {len(found)} as expected", x=0.01, ha="left")
    return figure


def draw_rows(axes: Axes, labels: Sequence[str], found: Sequence[DriftFinding]) -> None:
    """The axes of a figure with the drift along x and one row for each label, from the bottom up."""
    for tolerance in sorted({d.comparison.tolerance for d in found}):
        axes.axvspan(-tolerance, tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
    axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
    reach = reach_of(found)
    axes.set_xlim(-reach, reach)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="y")


def _places(sizes: dict[str, int]) -> dict[str, float]:
    """log2 of sizes that double; ranks where two are equal, or where the sizes merely number the rungs 1, 2, 3."""
    ordered = sorted(sizes, key=lambda label: sizes[label])
    least = sizes[ordered[0]]
    doublings = len(set(sizes.values())) == len(sizes) and all(_doubles(size, least) for size in sizes.values())
    return {label: math.log2(sizes[label]) if doublings else float(at) for at, label in enumerate(ordered)}


def _doubles(size: int, least: int) -> bool:
    return least > 0 and math.log2(size / least).is_integer()


def _mark(axes: Axes, x: float, interval: Interval, color: str, series: _Series) -> None:
    if not math.isfinite(interval.mean):
        return
    if math.isfinite(interval.half_width):
        axes.errorbar(x, interval.mean, yerr=arms_of(interval), color=color, capsize=4, linewidth=1.8)
    axes.plot(
        *(x, interval.mean),
        marker=series.marker,
        fillstyle=series.fill,
        markerfacecoloralt="white",
        markersize=8,
        color=color,
        zorder=4,
    )


def _number(axes: Axes, x: float, interval: Interval, color: str, *, left: bool) -> None:
    axes.annotate(
        interval_text(interval).split(" ")[0],
        *((x, interval.mean), (-9 if left else 9, 0)),
        ha="right" if left else "left",
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=color,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


def _frame(axes: Axes, found: Sequence[DriftFinding]) -> None:
    tolerances = sorted({d.comparison.tolerance for d in found})
    for tolerance in tolerances:
        axes.axhspan(-tolerance, tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
    axes.axhline(0, color=QUIET, linewidth=1, zorder=1)
    reach = reach_of(found)
    axes.set_ylim(-reach, reach)
    axes.set_ylabel(f"drift (octaves of {knob_name(found[0].comparison.knob)})")
    band = " and ".join(f"{tolerance:g}" for tolerance in tolerances)
    axes.set_xlabel(f"band: tolerance of +- {band} octave; bars: 95 % interval over seeds")
    axes.grid(visible=False, axis="x")


def reach_of(found: Sequence[DriftFinding]) -> float:
    """Half the length of the drift axis: it shows all means and tolerances, and intervals up to three times that."""
    means = [abs(d.drift.interval.mean) for d in found if math.isfinite(d.drift.interval.mean)]
    allowed = [
        max(1.5 * d.comparison.tolerance, d.comparison.tolerance + 1.1 * abs(d.comparison.residual)) for d in found
    ]
    core = max([0.1, *allowed, *(1.3 * mean for mean in means)])
    ends = [abs(end) for d in found for end in (d.drift.interval.low, d.drift.interval.high) if math.isfinite(end)]
    return min(max([core, *(1.1 * end for end in ends)]), 3 * core)
