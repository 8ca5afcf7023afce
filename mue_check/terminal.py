"""Tables and a status line for a terminal, drawn by rich. A table is the same plain text without a terminal."""

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH = 10_000  # lines may wrap on a narrow terminal, but no cell is ever cut


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Collection[int] = ()) -> list[str]:
    """The lines of a table with aligned columns. ``numeric`` are the indices of right-aligned columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for at, name in enumerate(header):
        table.add_column(Text(name), justify="right" if at in numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner with a text on standard error; yields a function that changes the text. Only on a terminal."""
    with Console(stderr=True).status(text) as line:
        yield line.update
