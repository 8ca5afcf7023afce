"""Figure of a judged sweep: every arm's losses, and where its optimum lies against its size."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mue_check.report.palette import (
    BAND,
    BAND_ALPHA,
    MARKERS,
    REFERENCE,
    TARGETS,
    WIDTH,
    error_bar,
    house_style,
    plain,
    shorten,
)
from mue_check.sweeps.judged import ArmFound, Judged

_VALLEY = 5.0
"""The left panel shows this many times the median height of all points."""


def plot_sweep(judged: Judged) -> Figure:
    """Left: loss above the lowest of its curve, mean over replicates. Right: drift of each arm's optimum."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        curves, drifts = figure.subplots(1, 2, width_ratios=[1.25, 1])
        heights = [_draw_curve(curves, judged, found, place) for place, found in enumerate(judged.arms)]
        top = min(_VALLEY * float(np.median(np.concatenate(heights))), float(np.concatenate(heights).max()))
        curves.set_ylim(-0.04 * top, 1.04 * top)
        _draw_drifts(drifts, judged)
        if len(judged.arms) > 1:
            figure.legend(loc="outside lower center", ncols=min(len(judged.arms), 7), fontsize=8)
        figure.suptitle(f"Optimum of {shorten(judged.sweep.columns.x, 30)}: {judged.verdict}", x=0.01, ha="left")
    return figure


def _color(judged: Judged, place: int) -> str:
    return REFERENCE if judged.arms[place].arm is judged.reference else TARGETS[place % len(TARGETS)]


def _draw_curve(axes: Axes, judged: Judged, found: ArmFound, place: int) -> NDArray[np.float64]:
    """Draw one arm; its heights above the lowest loss."""
    rows = judged.sweep.frame[(judged.sweep.frame.arm == found.arm.label) & ~judged.sweep.frame.diverged]
    loss = rows[judged.sweep.columns.losses[0]]
    height = (loss - loss.groupby([rows.cell, rows.seed]).transform("min")).groupby(rows.x).mean()
    marker = MARKERS[place % len(MARKERS)]
    label = f"{shorten(found.arm.label, 20)}{' (reference)' if found.arm is judged.reference else ''}"
    axes.plot(height.index, height, marker=marker, markersize=4, color=_color(judged, place), label=label)
    axes.set_xlabel(plain(f"log2({judged.sweep.columns.x})"))
    axes.set_ylabel("loss above the lowest of its curve")
    return height.to_numpy(dtype=np.float64)


def _draw_drifts(axes: Axes, judged: Judged) -> None:
    sized = all(found.arm.size > 0 for found in judged.arms)
    places = [math.log2(found.arm.size) if sized else float(at) for at, found in enumerate(judged.arms)]
    axes.axhspan(-judged.tolerance, judged.tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
    for at, (x, found) in enumerate(zip(places, judged.arms, strict=True)):
        marker, color = MARKERS[at % len(MARKERS)], _color(judged, at)
        if found.arm is judged.reference:
            axes.plot(x, 0, marker=marker, color=color)
        elif math.isfinite(found.drift.mean):
            bars = error_bar(found.drift) if math.isfinite(found.drift.half_width) else None
            axes.errorbar(x, found.drift.mean, yerr=bars, marker=marker, color=color, capsize=3)
    if sized and math.isfinite(judged.exponent.mean):
        base = math.log2(judged.reference.size)
        ends = np.array([min(places), max(places)])
        line = (judged.exponent.mean - judged.law) * (ends - base)
        axes.plot(ends, line, color="#999999", linewidth=1, linestyle="--", zorder=0)
    axes.set_xticks(
        places, [shorten(found.arm.label, 12) for found in judged.arms], rotation=45, ha="right", fontsize=8
    )
    axes.set_ylabel("drift (octaves); band: tolerance; dashed: power law")
    axes.set_xlabel(plain(str(judged.sweep.columns.arm)))
