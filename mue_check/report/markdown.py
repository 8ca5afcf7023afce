"""The Markdown summary: the page's first table and verdicts, fit for a pull request."""

import re
from collections.abc import Iterable

from mue_check.report.plots import Picture
from mue_check.report.summary import Summary
from mue_check.report.tables import (
    Table,
    control_table,
    cost_table,
    count_lines,
    drift_table,
    early_table,
    law_table,
    printable,
    rerun_commands,
)


def render_markdown(summary: Summary, pictures: Iterable[Picture]) -> str:
    """The whole summary; figures are linked beside it, in ``figures/``."""
    lines = [f"# {_escape(printable(summary.name))}: {summary.verdict}", ""]
    lines += [f"- {_escape(line)}" for line in count_lines(summary)]
    for table in (drift_table(summary), law_table(summary), early_table(summary), control_table(summary)):
        if table.rows:
            lines += ["", f"## {table.caption}", "", *_table(table)]
    lines += ["", "## What it cost", "", *_table(cost_table(summary))]
    lines += ["", "## Figures", ""]
    lines += [f"![{_escape(picture.alt)}](figures/{picture.name}.png)" for picture in pictures]
    lines += ["", "## Run again", ""]
    # indented, not fenced: no command can end the block
    lines += [f"    {command}" for command in rerun_commands(summary)]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    marks = ["---:" if at in table.numeric else "---" for at in range(len(table.header))]
    lines = [_cells(table.header), _cells(marks)]
    for row in table.rows:
        cells = [_escape(cell) for cell in row.cells]
        if row.note:
            cells[table.header.index("verdict")] += f"<br>{_escape(row.note)}"
        lines.append(_cells(cells))
    return lines


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is; an underscore inside a word is harmless and stays readable."""
    quoted = re.sub(r"([\\`*\[\]|!#])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", quoted)
