"""Tables for a terminal."""

from mue_check import terminal
from mue_check.report.table import Table


def text_table(table: Table) -> list[str]:
    """Header and rows in aligned columns; a row's note follows on a separate line."""
    head, *rows = terminal.text_table(table.header, [row.cells for row in table.rows])
    text = [head]
    for line, row in zip(rows, table.rows, strict=True):
        text += [line, f"  {row.note}"] if row.note else [line]
    return text
