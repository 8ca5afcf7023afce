"""Figures of drifts: one row for each question, the drift along x, the tolerance as a band."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mue_check.judge.verdict import Verdict
from mue_check.questions.display import Palette, knob_name
from mue_check.questions.drift import DriftFinding
from mue_check.report.palette import (
    BAND,
    BAND_ALPHA,
    FONT,
    PANEL,
    QUIET,
    RESIDUAL_ALPHA,
    draw_interval,
    house_style,
    shorten,
)

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
            c = d.comparison
            if c.residual:
                corner = (c.residual_edge, row - 0.5)
                axes.add_patch(Rectangle(corner, c.residual, 1, color=BAND, alpha=RESIDUAL_ALPHA, linewidth=0))
            mark_drift(axes, d, row, palette.of(c, d.side.label))
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


def reach_of(found: Sequence[DriftFinding]) -> float:
    """Half the length of the drift axis: it shows all means and tolerances, and intervals up to three times that."""
    means = [abs(d.drift.interval.mean) for d in found if math.isfinite(d.drift.interval.mean)]
    allowed = [
        max(1.5 * d.comparison.tolerance, d.comparison.tolerance + 1.1 * abs(d.comparison.residual)) for d in found
    ]
    core = max([0.1, *allowed, *(1.3 * mean for mean in means)])
    ends = [abs(end) for d in found for end in (d.drift.interval.low, d.drift.interval.high) if math.isfinite(end)]
    return min(max([core, *(1.1 * end for end in ends)]), 3 * core)
