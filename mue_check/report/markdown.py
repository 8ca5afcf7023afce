"""The Markdown summary: the page's first table and verdicts, fit for a pull request."""

import re
from collections.abc import Iterable, Sequence

from mue_check.report.drift_tables import control_table, drift_table, trend_table
from mue_check.report.format import printable
from mue_check.report.plots import Picture
from mue_check.report.summary import Summary
from mue_check.report.table import Table
from mue_check.report.tables import (
    axis_cost_table,
    count_lines,
    early_table,
    law_groups,
    open_law_table,
    rerun_commands,
    routing_table,
    rung_cost_table,
    speedup_table,
)
from mue_check.sigma0.report.section import sigma0_details, sigma0_lines, sigma0_tables


def render_markdown(summary: Summary, pictures: Sequence[Picture]) -> str:
    """The whole summary; figures are linked beside it, in ``figures/``."""
    lines = [f"# {escape(printable(summary.name))}: {summary.verdict}", ""]
    lines += [f"- {escape(line)}" for line in count_lines(summary)]
    for table in (drift_table(summary), trend_table(summary), speedup_table(summary), routing_table(summary)):
        lines += _section(table)
    lines += _sigma0(summary)
    if summary.laws:
        lines += ["", "## Laws of activation scales", ""]
        lines += [f"- {escape(group.headline)}" for group in law_groups(summary)]
        left = open_law_table(summary)
        lines += ["", *markdown_table(left)] if left.rows else []
    for table in (early_table(summary), control_table(summary)):
        lines += _section(table)
    lines += ["", "## What it cost", "", *markdown_table(axis_cost_table(summary)), ""]
    lines += _folded("core-seconds by rung", markdown_table(rung_cost_table(summary)))
    shown, more = ([p for p in pictures if bool(p.group) is folded] for folded in (False, True))
    lines += ["", "## Figures", "", *map(_image, shown)]
    lines += ["", *_folded(f"{len(more)} more figures", list(map(_image, more)))] if more else []
    lines += ["", "## Run again", ""]
    # indented, not fenced: no command can end the block
    lines += [f"    {command}" for command in rerun_commands(summary)]
    return "\n".join(lines) + "\n"


def _sigma0(summary: Summary) -> list[str]:
    said = sigma0_lines(summary)
    if not said:
        return []
    lines = ["", "## sigma\\_0: what Bridge II leaves over", "", *(f"- {escape(line)}" for line in said)]
    for table in sigma0_tables(summary):
        lines += ["", f"**{escape(table.caption)}**", "", *markdown_table(table)]
    for table in sigma0_details(summary):
        lines += ["", *_folded(escape(table.caption), markdown_table(table))]
    return lines


def _section(table: Table) -> list[str]:
    return ["", f"## {escape(table.caption)}", "", *markdown_table(table)] if table.rows else []


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def _image(picture: Picture) -> str:
    return f"![{escape(picture.alt)}](figures/{picture.name}.png)"


def markdown_table(table: Table) -> list[str]:
    """Its header, the marks of its columns, and its rows."""
    marks = ["---:" if at in table.numeric else "---" for at in range(len(table.header))]
    lines = [_cells(table.header), _cells(marks)]
    for row in table.rows:
        cells = [escape(cell) for cell in row.cells]
        if row.note:
            at = table.header.index("verdict") if "verdict" in table.header else -1
            cells[at] += f"<br>{escape(row.note)}"
        lines.append(_cells(cells))
    return lines


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Text that Markdown shows as it is; an underscore inside a word is harmless and stays readable."""
    quoted = re.sub(r"([\\`*\[\]|!#])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", quoted)
