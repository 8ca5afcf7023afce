"""A comparison of rules as text and as files: for the terminal, Markdown, raw numbers, and the figure."""

import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mue_check.overview.compare import Compared, SideBySide
from mue_check.questions.display import knob_name
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_plots import draw_residual, draw_rows, mark_drift
from mue_check.records.files import write_atomic
from mue_check.report.format import in_words
from mue_check.report.markdown import escape, markdown_table
from mue_check.report.palette import MARKERS, QUIET, REFERENCE, TARGETS, WIDTH, house_style, shorten
from mue_check.report.section import svg_of
from mue_check.report.table import text_table
from mue_check.study.comparison import DEFAULT_ROUTER

_COLORS = (*TARGETS, REFERENCE, QUIET)
_ROW = 0.34
"""Inches of a row with one rule; every further rule adds 0.4 of it."""


def compare_lines(sides: SideBySide) -> list[str]:
    """The tables for a terminal, with an empty line between two."""
    return [line for table in sides.tables for line in ("", *text_table(table))][1:]


def write_comparison(sides: SideBySide, folder: Path) -> Path:
    """Write compare.md, compare.csv and compare.svg into ``folder``; returns the Markdown file's path."""
    *others, counts = sides.tables
    lines = [f"# {escape(' against '.join(sides.columns))}", ""]
    for table in (counts, *others):
        lines += [f"## {table.caption}", "", *markdown_table(table), ""]
    lines += [
        "![Drift of every target under each rule](compare.svg)",
        "",
        "Drift in octaves with its 95 % interval, then regret in the unit of the loss, then the verdict.",
        "`= rule`: prescribes the same as that rule, so the same runs answer the question.",
        "",
    ]
    write_atomic(folder / "compare.svg", svg_of(plot_side_by_side(sides)))
    write_atomic(folder / "compare.csv", sides.numbers().to_csv(index=False).encode())
    page = folder / "compare.md"
    write_atomic(page, "\n".join(lines).encode())
    return page


def plot_side_by_side(sides: SideBySide) -> Figure:
    """Rows are targets in the order of the table."""
    rows, columns = sides.drifts[::-1], len(sides.columns)
    height = 1.6 + len(rows) * _ROW * (1 + 0.4 * (columns - 1))
    looks = [(_COLORS[at % len(_COLORS)], MARKERS[at % len(MARKERS)]) for at in range(columns)]
    with house_style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        draw_rows(axes, [_label(row, sides) for row in rows], [d for row in rows for d in row.found.values()])
        for y, row in enumerate(rows):
            c = row.comparison
            draw_residual(axes, c, y)
            if y and (c.ladder, c.knob) != (rows[y - 1].comparison.ladder, rows[y - 1].comparison.knob):
                axes.axhline(y - 0.5, color="#cccccc", linewidth=0.7, zorder=0)
            for at, (name, (color, marker)) in enumerate(zip(sides.columns, looks, strict=True)):
                if name in row.found and row.first_with_the_cells_of(name) == name:
                    offset = ((columns - 1) / 2 - at) * 0.75 / columns
                    mark_drift(axes, row.found[name], y + offset, color, marker=marker)
        axes.set_xlabel("drift (octaves); band: tolerance; bars: 95 % interval; same cells: once")
        figure.suptitle("Drift of the optimum, rule by rule", x=0.01, ha="left")
        handles = [
            Line2D([], [], linestyle="", color=color, marker=marker, label=shorten(name, 40))
            for name, (color, marker) in zip(sides.columns, looks, strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, 3))
    return figure


def _label(row: Compared[DriftFinding], sides: SideBySide) -> str:
    """The parts of the question in which the rows differ."""
    c = row.comparison
    parts = [shorten(f"{in_words(c.ladder)}: {c.sides[-1].label}", 40)]
    if len({each.comparison.corpus for each in sides.drifts}) > 1:
        parts.append(shorten(c.corpus, 16))
    if c.knob != "lr":
        parts.append(knob_name(c.knob))
    if c.router != DEFAULT_ROUTER:
        parts.append(shorten(c.router, 28))
    return "\n".join(textwrap.wrap(", ".join(parts), 44))
