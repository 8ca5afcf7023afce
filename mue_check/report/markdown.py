"""A report as Markdown, short enough for a pull request. Figures are linked in ``figures/``."""

import re
from collections.abc import Iterable, Sequence

from mue_check.report.format import printable
from mue_check.report.section import Fold, Picture, Report, Section
from mue_check.report.table import Table


def render_markdown(report: Report) -> str:
    """The whole report."""
    lines = [f"# {escape(printable(report.name))}: {report.verdict}", "", f"{escape(report.conclusion)}.", ""]
    lines += _bullets([*(f"{name}: {value}" for name, value in report.facts.items()), *report.lines])
    for section in report.sections:
        lines += ["", *_section(section)]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> list[str]:
    lines = [f"## {escape(section.title)}"]
    for block in (
        [escape(section.text)] if section.text else [],
        _bullets(section.lines),
        [f"- **{escape(term)}**: {escape(text)}" for term, text in section.terms.items()],
        *(_captioned(table, section.title) for table in section.tables),
        list(map(_image, section.pictures)),
        # indented, not fenced: no command can end the block
        [f"    {command}" for command in section.commands],
    ):
        lines += ["", *block] if block else []
    brief = [f"{s.title}: {s.verdict.value}" + (f"; {s.text}" if s.text else "") for s in section.strips]
    brief += [fold.title for fold in section.folds if fold.brief]
    lines += ["", *_bullets(brief)] if brief else []
    if pictures := tuple(picture for strip in section.strips for picture in strip.all_pictures):
        lines += _fold(Fold(title=f"{len(pictures)} figures", pictures=pictures))
    return [*lines, *(line for fold in section.folds if not fold.brief for line in _fold(fold))]


def _captioned(table: Table, title: str) -> list[str]:
    caption = [] if table.caption == title else [f"**{escape(table.caption)}**", ""]
    return [*caption, *markdown_table(table)]


def _fold(fold: Fold) -> list[str]:
    lines = ["", f"<details><summary>{escape(fold.title)}</summary>", ""]
    for table in fold.tables:
        lines += [*markdown_table(table), ""]
    return [*lines, *map(_image, fold.pictures), *([""] if fold.pictures else []), "</details>"]


def _bullets(lines: Iterable[str]) -> list[str]:
    return [f"- {escape(line)}" for line in lines]


def _image(picture: Picture) -> str:
    return f"![{escape(picture.alt)}](figures/{picture.name}.svg)"


def markdown_table(table: Table) -> list[str]:
    """Its header, the alignment of its columns, and its rows."""
    marks = ["---:" if at in table.numeric else "---" for at in range(len(table.header))]
    lines = [_cells(table.header), _cells(marks)]
    for row in table.rows:
        cells = [escape(cell) for cell in row.cells]
        if row.note:
            at = table.header.index("verdict") if "verdict" in table.header else -1
            cells[at] += f"<br>{escape(row.note)}"
        lines.append(_cells(cells))
    return lines


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Text that Markdown shows as it is. An underscore inside a word is harmless and stays readable."""
    quoted = re.sub(r"([\\`*\[\]|!#])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", quoted)
