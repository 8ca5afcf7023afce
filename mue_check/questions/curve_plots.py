"""Figures of loss against the swept base value: every rung of a ladder, with its fitted optimum."""

import math
import textwrap
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle

from mue_check.judge.optimum import Curve, Optimum
from mue_check.questions.display import Palette, heading, in_unit_of, knob_name
from mue_check.questions.drift import DriftFinding
from mue_check.report.palette import (
    BAND,
    BAND_ALPHA,
    MARKERS,
    QUIET,
    RESIDUAL_ALPHA,
    WIDTH,
    draw_interval,
    house_style,
    plain,
    shorten,
)

_VALLEY = 3.5
"""The panel shows this many times the height of the fitted valleys: losses above say nothing about the optimum."""
_CROSS = 0.05
"""Share of the panel's height that one row of crosses takes."""


class _Arm(NamedTuple):
    label: str
    curve: Curve
    optimum: Optimum
    role: str


class _Look(NamedTuple):
    color: str
    marker: str
    line: Literal["-", "--"]


def plot_curves(found: Sequence[DriftFinding], palette: Palette) -> Figure:
    """All rungs of one ladder: loss against log2 of the value above, the fitted optima with their intervals below.

    Points of single seeds are faint, the line is their mean, crosses at the top edge diverged.
    """
    first = found[0].comparison
    # the comparisons share the reference, and the one with the most seeds has the sharpest curve
    widest = max(found, key=lambda d: len(d.reference.seeds))
    arms = [_Arm(first.sides[0].label, widest.reference, widest.drift.reference, "reference")]
    arms += [_Arm(d.comparison.sides[-1].label, d.target, d.drift.target, d.drift.verdict.value) for d in found]
    lost = [arm for arm in arms if arm.curve.diverged.any()]
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.6 + 0.3 * len(arms)), layout="constrained")
        grid = figure.add_gridspec(2, 1, height_ratios=[3.6, 0.3 * len(arms) + 0.5])
        above = figure.add_subplot(grid[0])
        below = figure.add_subplot(grid[1], sharex=above)
        handles = []
        for place, arm in enumerate(arms):
            # the null control compares a rung with itself: both have one color, so the line style must differ
            again = place > 0 and arm.label == arms[0].label
            look = _Look(palette.of(first, arm.label), MARKERS[place % len(MARKERS)], "--" if again else "-")
            name = f"{plain(arm.label)} (other seeds)" if again else plain(arm.label)
            _draw_curve(above, arm, look)
            handles.append(Line2D([], [], color=look.color, marker=look.marker, linestyle=look.line, label=name))
            _draw_optimum(below, arm.optimum, len(arms) - 1 - place, look.color)
        for place, arm in enumerate(lost):
            at = arm.curve.x[arm.curve.diverged.any(axis=0)]
            height = np.full(at.shape, 0.97 - _CROSS * place)
            color, where = palette.of(first, arm.label), above.get_xaxis_transform()
            above.plot(at, height, transform=where, linestyle="", marker="x", markersize=6, color=color)
        if lost:
            label = "diverged (at the top edge)"
            handles.append(Line2D([], [], color=QUIET, marker="x", linestyle="", label=label))
        if any(arm.optimum.resolved for arm in arms):
            handles.append(Line2D([], [], color=QUIET, marker="*", markersize=11, linestyle="", label="fitted optimum"))
        above.set_ylim(*_loss_limits(arms, _CROSS * (len(lost) + 1)))
        above.set_ylabel(in_unit_of(found, "held-out loss (nats per token)"))
        above.tick_params(labelbottom=False)
        x = np.concatenate([arm.curve.x for arm in arms])
        if x.size:
            above.set_xlim(float(x.min()) - 0.3, float(x.max()) + 0.3)
        center = widest.drift.reference.interval.mean
        if math.isfinite(center):
            below.axvspan(center - first.tolerance, center + first.tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
            widest_law = max((d.comparison for d in found), key=lambda c: abs(c.residual))
            if widest_law.residual:
                edge = center + widest_law.residual_edge
                below.axvspan(edge, edge + widest_law.residual, color=BAND, alpha=RESIDUAL_ALPHA, linewidth=0)
        names = [f"{shorten(arm.label, 22)}: {arm.role}" for arm in reversed(arms)]
        below.set_yticks(range(len(arms)), names)
        below.set_ylim(-0.6, len(arms) - 0.4)
        below.set_xlabel(
            f"log2(base {knob_name(first.knob)}); band: reference's optimum +- {first.tolerance:g} octave"
            + ("; lighter: residual of the approximate law" if any(d.comparison.residual for d in found) else "")
        )
        below.grid(visible=False, axis="y")
        figure.suptitle(_title(found), x=0.01, ha="left")
        rows = -(-len(handles) // 5)
        figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // rows))
    return figure


def _draw_curve(axes: Axes, arm: _Arm, look: _Look) -> None:
    curve, optimum = arm.curve, arm.optimum
    axes.plot(curve.x, curve.usable.T, linestyle="", marker=look.marker, markersize=3.5, color=look.color, alpha=0.28)
    # a mean is taken over all seeds or none, so the line breaks where some seed diverged
    mean = curve.usable.mean(axis=0)
    axes.plot(curve.x, mean, color=look.color, marker=look.marker, markersize=4.5, linewidth=1.6, linestyle=look.line)
    if optimum.resolved:
        loss = float(np.mean(list(optimum.loss_by_seed.values())))
        star = MarkerStyle("*", joinstyle="round")
        axes.plot(
            *(optimum.interval.mean, loss),
            marker=star,
            markersize=14,
            color=look.color,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=5,
        )


def _draw_optimum(axes: Axes, optimum: Optimum, row: int, color: str) -> None:
    if not optimum.resolved:
        reason = shorten(f"no parabolas: {optimum.reason}", 80)
        axes.text(0.01, row, reason, transform=axes.get_yaxis_transform(), color=color, va="center", fontsize=9)
        return
    draw_interval(axes, optimum.interval, row, color)


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
    return low - 0.06 * height, low + height / (1 - reserve)


def _title(found: Sequence[DriftFinding]) -> str:
    c = found[0].comparison
    if c.is_control:
        return f"{shorten(c.name, 70)}\n{found[0].drift.verdict.value}, expected {plain(c.expected)}"
    verdicts = ", ".join(f"{plain(d.comparison.sides[-1].label)} {d.drift.verdict.value}" for d in found)
    return "\n".join([heading(c), *textwrap.wrap(verdicts, 95)])
