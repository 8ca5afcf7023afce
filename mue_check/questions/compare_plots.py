"""Figure of a comparison: the drift of every target, one row each, with one color and marker for each rule."""

import textwrap

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mue_check.questions.compare import ComparedDrift, SideBySide
from mue_check.questions.comparison import DEFAULT_ROUTER
from mue_check.questions.display import knob_name
from mue_check.questions.drift_plots import draw_rows, mark_drift
from mue_check.report.format import in_words
from mue_check.report.palette import (
    BAND,
    MARKERS,
    QUIET,
    REFERENCE,
    RESIDUAL_ALPHA,
    TARGETS,
    WIDTH,
    house_style,
    shorten,
)

_COLORS = (*TARGETS, REFERENCE, QUIET)
_ROW = 0.34
"""Inches of a row with one rule; every further rule adds 0.4 of it."""


def plot_side_by_side(sides: SideBySide) -> Figure:
    """Rows are targets in the order of the table."""
    rows = sides.drifts[::-1]
    found = [d for q in rows for d in q.found.values()]
    height = 1.6 + len(rows) * _ROW * (1 + 0.4 * (len(sides.columns) - 1))
    with house_style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        draw_rows(axes, [_label(q, sides) for q in rows], found)
        for row, question in enumerate(rows):
            residual = question.comparison.residual
            if residual:
                corner = (question.comparison.residual_edge, row - 0.5)
                axes.add_patch(Rectangle(corner, residual, 1, color=BAND, alpha=RESIDUAL_ALPHA, linewidth=0))
            if row and row_ladder(question) != row_ladder(rows[row - 1]):
                axes.axhline(row - 0.5, color="#cccccc", linewidth=0.7, zorder=0)
            for at, column in enumerate(sides.columns):
                if column in question.found and question.first_with_the_cells_of(column) == column:
                    offset = ((len(sides.columns) - 1) / 2 - at) * 0.75 / len(sides.columns)
                    mark_drift(
                        axes, question.found[column], row + offset, _color(at), marker=MARKERS[at % len(MARKERS)]
                    )
        axes.set_xlabel("drift (octaves); band: tolerance; bars: 95 % interval; same cells: once")
        figure.suptitle("Drift of the optimum, rule by rule", x=0.01, ha="left")
        handles = [
            Line2D([], [], linestyle="", color=_color(at), marker=MARKERS[at % len(MARKERS)], label=shorten(name, 40))
            for at, name in enumerate(sides.columns)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3))
    return figure


def row_ladder(question: ComparedDrift) -> tuple[str, str]:
    """What the rows between two separating lines share."""
    return question.comparison.ladder, question.comparison.knob


def _color(at: int) -> str:
    return _COLORS[at % len(_COLORS)]


def _label(question: ComparedDrift, sides: SideBySide) -> str:
    """The parts of the question in which the rows differ."""
    c = question.comparison
    parts = [shorten(f"{in_words(c.ladder)}: {question.target}", 40)]
    if len({q.comparison.corpus for q in sides.drifts}) > 1:
        parts.append(shorten(c.corpus, 16))
    if c.knob != "lr":
        parts.append(knob_name(c.knob))
    if c.router != DEFAULT_ROUTER:
        parts.append(shorten(c.router, 28))
    return "\n".join(textwrap.wrap(", ".join(parts), 44))
