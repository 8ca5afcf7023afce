"""Tables as rows of text: the same for the Markdown summary and the page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mue_check.report.findings import Finding
from mue_check.report.format import in_words, knob_words, printable

_Item = TypeVar("_Item")
_Found = TypeVar("_Found", bound=Finding)
Cells = Mapping[str, Callable[[_Item], str]]
"""By header, what a column says of an item."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table; ``note`` is a sentence that belongs under it, ``verdict`` one of the cells or empty."""

    cells: tuple[str, ...]
    verdict: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under ``header``. ``numeric`` are the columns that are set flush right."""

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
) -> Table:
    """One row for each item. A column named "verdict" is the row's verdict unless it says that there is none."""
    rows = []
    for item in items:
        cells = {name: printable(cell(item)) for name, cell in columns.items()}
        verdict = cells.get("verdict", "")
        rows.append(
            Row(cells=tuple(cells.values()), verdict=verdict if verdict.isalpha() else "", note=printable(note(item)))
        )
    flush = tuple(at for at, name in enumerate(columns) if name in numeric)
    return Table(caption=caption, header=tuple(columns), rows=tuple(rows), numeric=flush)


def asked_columns(found: Sequence[_Found], *, target: bool = True) -> dict[str, Callable[[_Found], str]]:
    """What was asked: the ladder, its target, corpus and rule; value and router only where they differ."""
    columns: dict[str, Callable[[_Found], str]] = {"axis": lambda f: in_words(f.comparison.ladder)}
    if any(f.comparison.knob != "lr" for f in found):
        columns["value"] = lambda f: knob_words(f.comparison.knob)
    if target:
        columns["target"] = lambda f: f.comparison.sides[-1].label
    columns["corpus"] = lambda f: f.comparison.corpus
    columns["rule"] = lambda f: f.comparison.rule
    if len({f.comparison.router for f in found}) > 1:
        columns["router"] = lambda f: f.comparison.router
    return columns
