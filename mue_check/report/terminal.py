"""Tables for a terminal."""

from mue_check.report.table import Table


def text_table(table: Table) -> list[str]:
    """Header and rows in aligned columns; a row's note follows on a separate line."""
    lines = (table.header, *(row.cells for row in table.rows))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *rows = (
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in lines
    )
    text = [head]
    for line, row in zip(rows, table.rows, strict=True):
        text += [line, f"  {row.note}"] if row.note else [line]
    return text
