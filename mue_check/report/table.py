"""Tables as rows of text, which page, Markdown and terminal share, and how a terminal shows them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mue_check import terminal
from mue_check.report.format import printable

_Item = TypeVar("_Item")
Cells = Mapping[str, Callable[[_Item], str]]
"""By column header, the function that turns an item into that column's text."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table; ``note`` is a sentence printed under it, ``verdict`` one of the cells or empty.

    ``link`` is the anchor of what the first cell names.
    """

    cells: tuple[str, ...]
    verdict: str = ""
    note: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under ``header``. ``numeric`` columns are set flush right."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: tuple[int, ...] = ()


def make_table(
    caption: str,
    items: Sequence[_Item],
    columns: Cells[_Item],
    *,
    numeric: Sequence[str] = (),
    note: Callable[[_Item], str] = lambda _: "",
    link: Callable[[_Item], str] = lambda _: "",
) -> Table:
    """One row for each item. A column named "verdict" is the row's verdict, unless it says that there is none."""
    rows = []
    for item in items:
        cells = {name: printable(cell(item)) for name, cell in columns.items()}
        verdict = cells.get("verdict", "")
        rows.append(
            Row(
                cells=tuple(cells.values()),
                verdict=verdict if verdict.isalpha() else "",
                note=printable(note(item)),
                link=link(item),
            )
        )
    flush = tuple(at for at, name in enumerate(columns) if name in numeric)
    return Table(caption=caption, header=tuple(columns), rows=tuple(rows), numeric=flush)


def text_table(table: Table) -> list[str]:
    """Header and rows in aligned columns; a row's note follows on a separate line."""
    head, *rows = terminal.text_table(table.header, [row.cells for row in table.rows])
    text = [head]
    for line, row in zip(rows, table.rows, strict=True):
        text += [line, f"  {row.note}"] if row.note else [line]
    return text
