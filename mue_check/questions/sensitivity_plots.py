"""The headline figure: measured against predicted drifts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mue_check.judge.agreement import Agreement
from mue_check.questions.display import knob_name
from mue_check.questions.drift import DriftFinding
from mue_check.report.palette import BAND, BAND_ALPHA, MARKERS, QUIET, REFERENCE, TARGETS, arms_of, house_style

_SIZE = (7.0, 5.2)
_COLORS = (*TARGETS, REFERENCE)
_STEP = 0.035
"""Octaves between points of one prediction, which would otherwise hide each other."""


def plot_predicted(
    found: Sequence[DriftFinding], right: Sequence[bool], fit: Agreement | None, notes: Sequence[str]
) -> Figure:
    """One point for each drift: color and marker show the knob, and points of the right rule are open."""
    knobs = list(dict.fromkeys(d.comparison.knob for d in found))
    at = _apart([d.comparison.predicted or 0.0 for d in found])
    means = [d.drift.interval.mean for d in found]
    low, high = min(*at, *means, -1.0) - 0.3, max(*at, *means, 1.0) + 0.3
    with house_style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        for tolerance in sorted({d.comparison.tolerance for d in found}):
            axes.axhspan(-tolerance, tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
        axes.axline((0, 0), slope=1, color=QUIET, linewidth=1, linestyle="--", zorder=1)
        if fit:
            axes.axline((0, fit.intercept.mean), slope=fit.slope.mean, color=REFERENCE, linewidth=1.5, zorder=2)
        for x, d, is_right in zip(at, found, right, strict=True):
            color, marker = _look(knobs.index(d.comparison.knob))
            axes.errorbar(
                *(x, d.drift.interval.mean),
                yerr=arms_of(d.drift.interval),
                color=color,
                marker=marker,
                markersize=5.5,
                markerfacecolor="white" if is_right else color,
                linewidth=1,
                alpha=0.85,
                zorder=3,
            )
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("predicted drift (octaves)")
        axes.set_ylabel("measured drift (octaves), 95 % intervals")
        handles = [_handle(knob_name(knob), *_look(i), "full") for i, knob in enumerate(knobs)]
        handles += [_handle("right rule", QUIET, "o", "none"), _handle("wrong rule or mutant", QUIET, "o", "full")]
        handles.append(Line2D([], [], color=QUIET, linestyle="--", label="predicted = measured"))
        if fit:
            handles.append(Line2D([], [], color=REFERENCE, label="fitted line"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8.5)
        figure.suptitle("\n".join(notes), x=0.01, ha="left", fontsize=9.5)
    return figure


def _look(at: int) -> tuple[str, str]:
    return _COLORS[at % len(_COLORS)], MARKERS[at % len(MARKERS)]


def _handle(label: str, color: str, marker: str, fill: str) -> Line2D:
    face = color if fill == "full" else "white"
    return Line2D([], [], color=color, marker=marker, markerfacecolor=face, linestyle="", label=label)


def _apart(predicted: Sequence[float]) -> list[float]:
    """The predictions, with those that are equal set side by side."""
    keys = np.round(predicted, 1)
    total, seen = Counter(keys.tolist()), Counter[float]()
    places = []
    for value, key in zip(predicted, keys.tolist(), strict=True):
        step = min(_STEP, 0.5 / total[key])
        places.append(value + step * (seen[key] - (total[key] - 1) / 2))
        seen[key] += 1
    return places
