"""A comparison of rules as text and as files: for the terminal, Markdown, raw numbers, and the figure."""

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mue_check.judge.verdict import Verdict
from mue_check.questions.compare import Compared, Count, SideBySide
from mue_check.questions.comparison import DEFAULT_ROUTER
from mue_check.questions.display import knob_name
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_plots import draw_rows, mark_drift
from mue_check.questions.scales import LawsFinding
from mue_check.records.files import write_atomic
from mue_check.report.format import NONE, in_words, interval_text, number_text
from mue_check.report.markdown import escape, markdown_table
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
from mue_check.report.section import svg_of
from mue_check.report.table import Table, make_table, text_table

NAME = "compare"
_SAME = "`= rule`: prescribes the same as that rule, so the same runs answer the question."


def compare_lines(sides: SideBySide) -> list[str]:
    """The tables for a terminal."""
    tables = (_drifts(sides, " "), *_laws(sides), _counts(sides))
    lines: list[str] = []
    for table in tables:
        lines += [*([""] if lines else []), *text_table(table)]
    return lines


def write_comparison(sides: SideBySide, folder: Path) -> Path:
    """Write compare.md, compare.csv and the figure into ``folder``; returns the Markdown file's path."""
    figure = plot_side_by_side(sides)
    write_atomic(folder / f"{NAME}.svg", svg_of(figure))
    write_atomic(folder / f"{NAME}.csv", sides.numbers().to_csv(index=False).encode())
    page = folder / f"{NAME}.md"
    write_atomic(page, _markdown(sides).encode())
    return page


def _markdown(sides: SideBySide) -> str:
    lines = [f"# {escape(' against '.join(sides.columns))}", ""]
    for table in (_counts(sides), _drifts(sides, ", "), *_laws(sides)):
        lines += [f"## {table.caption}", "", *markdown_table(table), ""]
    lines += [f"![Drift of every target under each rule]({NAME}.svg)", ""]
    lines += [
        "Drift in octaves with its 95 % interval, then regret in the unit of the loss, then the verdict.",
        _SAME,
        "",
    ]
    return "\n".join(lines)


def _counts(sides: SideBySide) -> Table:
    columns: dict[str, Callable[[Count], str]] = {"rule": lambda count: count.column}
    for verdict in Verdict:
        columns[verdict.value] = partial(_times, verdict)
    columns["mean |drift|"] = lambda count: number_text(count.mean_drift)
    columns["mean regret"] = lambda count: number_text(count.mean_regret, 4)
    columns["over rows"] = lambda count: str(count.shared)
    numeric = tuple(columns)[1:]
    return make_table("In all: means over the rows that every rule resolves", sides.counts(), columns, numeric=numeric)


def _drifts(sides: SideBySide, between: str) -> Table:
    rows = sides.drifts
    columns: dict[str, Callable[[Compared[DriftFinding]], str]] = {
        "axis": lambda q: in_words(q.comparison.ladder),
        "target": lambda q: q.comparison.sides[-1].label,
        "corpus": lambda q: q.comparison.corpus,
    }
    if any(q.comparison.knob != "lr" for q in rows):
        columns["value"] = lambda q: knob_name(q.comparison.knob)
    if len({q.comparison.router for q in rows}) > 1:
        columns["router"] = lambda q: q.comparison.router
    columns |= {name: partial(_cell, name, between) for name in sides.columns}
    return make_table("Drift of the optimum, regret, verdict", rows, columns)


def _laws(sides: SideBySide) -> list[Table]:
    """How many laws of scale each rule breaks on each ladder, and the first of them; empty without such questions."""
    if not sides.laws:
        return []
    columns: dict[str, Callable[[Compared[LawsFinding]], str]] = {
        "axis": lambda laws: in_words(laws.comparison.ladder),
        "corpus": lambda laws: laws.comparison.corpus,
        "laws": lambda laws: str(len(next(iter(laws.found.values())).results)),
    }
    columns |= {name: partial(_broken, name) for name in sides.columns}
    return [make_table("Laws of scale that fail, and the first of them", sides.laws, columns, numeric=("laws",))]


def _broken(column: str, laws: Compared[LawsFinding]) -> str:
    found = laws.found.get(column)
    if found is None:
        return NONE
    failed = [result for result in found.results if result.verdict is Verdict.FAIL]
    return f"{len(failed)}: {failed[0].law.name}" if failed else "0"


def _times(verdict: Verdict, count: Count) -> str:
    return str(count.verdicts.get(verdict, 0))


def _cell(column: str, between: str, question: Compared[DriftFinding]) -> str:
    found = question.found.get(column)
    if found is None:
        return NONE
    if (first := question.first_with_the_cells_of(column)) != column:
        return f"= {first}"
    drift = found.drift
    regret = [] if drift.reason is not None else [f"{drift.regret:.4f}"]
    return between.join([interval_text(drift.interval), *regret, drift.verdict.value])


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


def row_ladder(question: Compared[DriftFinding]) -> tuple[str, str]:
    """What the rows between two separating lines share."""
    return question.comparison.ladder, question.comparison.knob


def _color(at: int) -> str:
    return _COLORS[at % len(_COLORS)]


def _label(question: Compared[DriftFinding], sides: SideBySide) -> str:
    """The parts of the question in which the rows differ."""
    c = question.comparison
    parts = [shorten(f"{in_words(c.ladder)}: {question.comparison.sides[-1].label}", 40)]
    if len({q.comparison.corpus for q in sides.drifts}) > 1:
        parts.append(shorten(c.corpus, 16))
    if c.knob != "lr":
        parts.append(knob_name(c.knob))
    if c.router != DEFAULT_ROUTER:
        parts.append(shorten(c.router, 28))
    return "\n".join(textwrap.wrap(", ".join(parts), 44))
