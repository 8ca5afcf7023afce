"""Figures of drifts, one row for each question and the tolerance as a band, and of the loss curves behind them."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mue_check.judge.optimum import Curve, Optimum
from mue_check.judge.verdict import Verdict
from mue_check.questions.display import Palette, in_unit_of, knob_name
from mue_check.questions.drift import DriftFinding
from mue_check.report.palette import (
    BAND,
    BAND_ALPHA,
    FONT,
    MARKERS,
    PANEL,
    QUIET,
    RESIDUAL_ALPHA,
    draw_interval,
    house_style,
    shorten,
)
from mue_check.study.comparison import Comparison

_COLORS = {Verdict.FAIL: "#D55E00", Verdict.INCONCLUSIVE: "#E69F00"}
_ROW = 0.34
"""Inches."""
_NAME = 44
"""Characters that fit above a row."""


def plot_drifts(found: Sequence[DriftFinding], palette: Palette) -> Figure:
    """Each drift with its interval. Above it the target, what distinguishes its question, and its verdict."""
    rows = list(reversed(found))
    with house_style(FONT):
        figure = Figure(figsize=(PANEL[0], max(PANEL[1], 0.75 + _ROW * len(rows))), layout="constrained")
        axes = figure.add_subplot()
        draw_rows(axes, [""] * len(rows), found)
        axes.set_ylim(-0.5, len(rows) - 0.3)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        for row, d in enumerate(rows):
            draw_residual(axes, d.comparison, row)
            mark_drift(axes, d, row, palette.of(d.comparison, d.side.label))
            _write(axes, 0.0, row, shorten(row_name(d, found), _NAME))
            _write(axes, 1.0, row, d.verdict.value, color=_COLORS.get(d.verdict, QUIET))
        axes.set_xlabel("drift (octaves); band: tolerance")
        axes.set_title("Drift of the optimum")
    return figure


def mark_drift(axes: Axes, found: DriftFinding, y: float, color: str, *, marker: str = "o") -> None:
    """The drift with its interval; one that is unresolved has no place on the axis, and is written at its edge."""
    if math.isfinite(found.drift.interval.mean):
        draw_interval(axes, found.drift.interval, y, color, marker=marker)
    else:
        where = axes.get_yaxis_transform()
        axes.text(0.01, y, "unresolved", transform=where, va="center", style="italic", fontsize=FONT - 1, color=color)


def row_name(d: DriftFinding, among: Sequence[DriftFinding]) -> str:
    """The target, and of its knob, corpus, rule and router those that differ."""
    parts = _parts(d)
    differ = [part for at, part in enumerate(parts) if len({_parts(each)[at] for each in among}) > 1]
    return ", ".join([d.side.label, *differ])


def _parts(d: DriftFinding) -> tuple[str, ...]:
    c = d.comparison
    return knob_name(c.knob, short=True), c.corpus, c.rule, c.router


def _write(axes: Axes, x: float, row: int, text: str, color: str | None = None) -> None:
    axes.annotate(
        *(text, (x, row), (0, 8)),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right" if x else "left",
        fontsize=FONT - 1,
        color=color or QUIET,
    )


def draw_rows(axes: Axes, labels: Sequence[str], found: Sequence[DriftFinding]) -> None:
    """The axes of a figure with the drift along x and one row for each label, from the bottom up."""
    for tolerance in sorted({d.comparison.tolerance for d in found}):
        axes.axvspan(-tolerance, tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
    axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
    reach = reach_of(found)
    axes.set_xlim(-reach, reach)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="y")


def draw_residual(axes: Axes, comparison: Comparison, row: int) -> None:
    """A band for the drift that an approximate law leaves, beyond the tolerance."""
    if comparison.residual:
        edge = math.copysign(comparison.tolerance, comparison.residual)
        band = Rectangle((edge, row - 0.5), comparison.residual, 1, color=BAND, alpha=RESIDUAL_ALPHA, linewidth=0)
        axes.add_patch(band)


def reach_of(found: Sequence[DriftFinding]) -> float:
    """Half the length of the drift axis: it shows all means and tolerances, and intervals up to three times that."""
    means = [abs(d.drift.interval.mean) for d in found if math.isfinite(d.drift.interval.mean)]
    allowed = [
        max(1.5 * d.comparison.tolerance, d.comparison.tolerance + 1.1 * abs(d.comparison.residual)) for d in found
    ]
    core = max([0.1, *allowed, *(1.3 * mean for mean in means)])
    ends = [abs(end) for d in found for end in (d.drift.interval.low, d.drift.interval.high) if math.isfinite(end)]
    return min(max([core, *(1.1 * end for end in ends)]), 3 * core)


_VALLEY = 3.5
"""The panel shows this many times the height of the fitted valleys: losses above say nothing about the optimum."""
_CROSS = 0.05
"""Share of the panel's height that one row of crosses takes."""
_TICKS = 5
_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


class _Arm(NamedTuple):
    label: str
    curve: Curve
    optimum: Optimum


class _Look(NamedTuple):
    color: str
    marker: str
    line: Literal["-", "--"]


def plot_curves(found: Sequence[DriftFinding], palette: Palette) -> Figure:
    """All rungs of one ladder: loss against the value, on a log2 axis that says both. Stars are the fitted optima.

    Points of single seeds are faint, the line is their mean, crosses at the top edge diverged.
    """
    first = found[0].comparison
    # the comparisons share the reference, and the one with the most seeds has the sharpest curve
    widest = max(found, key=lambda d: len(d.reference.seeds))
    arms = [_Arm(first.sides[0].label, widest.reference, widest.drift.reference)]
    arms += [_Arm(d.comparison.sides[-1].label, d.target, d.drift.target) for d in found]
    lost = [arm for arm in arms if arm.curve.diverged.any()]
    with house_style(FONT):
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.add_subplot()
        for place, arm in enumerate(arms):
            # the null control compares a rung with itself: both have one color, so the line style must differ
            again = place > 0 and arm.label == arms[0].label
            look = _Look(palette.of(first, arm.label), MARKERS[place % len(MARKERS)], "--" if again else "-")
            _draw_curve(axes, arm, look, f"{shorten(arm.label, 18)}{' (other seeds)' * again}")
        for place, arm in enumerate(lost):
            at = arm.curve.x[arm.curve.diverged.any(axis=0)]
            height = np.full(at.shape, 0.97 - _CROSS * place)
            color, where = palette.of(first, arm.label), axes.get_xaxis_transform()
            axes.plot(at, height, transform=where, linestyle="", marker="x", markersize=4, color=color)
        axes.set_ylim(*_loss_limits(arms, _CROSS * (len(lost) + 1)))
        axes.set_ylabel(in_unit_of((d.comparison for d in found), "loss (nats per token)"))
        _label_values(axes, np.concatenate([arm.curve.x for arm in arms]))
        axes.set_xlabel(f"base {knob_name(first.knob)}" + ("; x: diverged" if lost else ""))
        corpus, rule = shorten(first.corpus, 16), shorten(first.rule, 38)
        axes.set_title(f"Loss: {corpus}, {rule}")
        axes.legend(fontsize=FONT - 1, loc="upper center", ncols=min(len(arms), 3), handlelength=1.4, columnspacing=1)
    return figure


def _draw_curve(axes: Axes, arm: _Arm, look: _Look, name: str) -> None:
    curve, optimum = arm.curve, arm.optimum
    axes.plot(curve.x, curve.usable.T, linestyle="", marker=look.marker, markersize=2.5, color=look.color, alpha=0.28)
    # a mean is taken over all seeds or none, so the line breaks where some seed diverged
    mean = curve.usable.mean(axis=0)
    axes.plot(
        curve.x, mean, color=look.color, marker=look.marker, markersize=3.5, linewidth=1.4, ls=look.line, label=name
    )
    if optimum.resolved:
        at = optimum.interval.mean
        axes.plot(
            at, on_curve(curve.x, mean, at), marker="*", markersize=11, color=look.color, zorder=5, mec="white", mew=0.6
        )


def on_curve(x: NDArray[np.float64], mean: NDArray[np.float64], at: float) -> float:
    """The height of the drawn line at a value, so that a star lies on it; NaN where the line is broken."""
    return float(np.interp(at, x, mean)) if x[0] <= at <= x[-1] else math.nan


def _label_values(axes: Axes, x: NDArray[np.float64]) -> None:
    """Ticks at powers of two, each with its number."""
    if not x.size:
        return
    low, high = math.floor(x.min()), math.ceil(x.max())
    ticks = range(low, high + 1, -(-(high - low) // _TICKS) or 1)
    axes.set_xticks(list(ticks), [f"{2.0**tick:.2g}\n2{str(tick).translate(_SUPERSCRIPT)}" for tick in ticks])
    axes.set_xlim(float(x.min()) - 0.3, float(x.max()) + 0.3)


def _loss_limits(arms: Sequence[_Arm], reserve: float) -> tuple[float, float]:
    """From below the lowest loss to a few valleys above it; ``reserve`` is the share of the panel for the crosses."""
    losses = np.concatenate([arm.curve.usable.ravel() for arm in arms])
    losses = losses[np.isfinite(losses)]
    if not losses.size:
        return 0.0, 1.0
    low, high = float(losses.min()), float(losses.max())
    optima = [arm.optimum for arm in arms if arm.optimum.resolved]
    if optima:
        depth = max(o.curvature * (o.window[-1] - o.window[0]) ** 2 / 4 for o in optima)
        high = min(high, max(float(np.mean(list(o.loss_by_seed.values()))) for o in optima) + _VALLEY * depth)
    height = max(high - low, 1e-3)
    # the legend needs room above the curves
    return low - 0.06 * height, low + 1.15 * height / (1 - reserve)
