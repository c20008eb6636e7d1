"""Tables of plain text: a title, a head, a rule and rows; numbers to the right, words to the left.

::

    Conversion
    model   route     cold s   peak MB
    ------  -------  -------  --------
    mlp     muster      1.20       230
"""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 120
"""Columns of a terminal that tables are read on."""

_GAP = "  "


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    """Return the table, every line as short as its cells allow.

    Args:
        title: Stands above it.
        columns: The head of each column.
        rows: A cell for each column. A column whose cells are all numbers or ``-`` is aligned to the right.
        notes: Stand below it, shortened to `WIDTH`.
    """
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    right = [all(_numeric(row[index]) for row in rows) for index in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    shortened = [note if len(note) <= WIDTH else f"{note[: WIDTH - 1]}…" for note in notes]
    return "\n".join([title, *(_line(cells, widths, right) for cells in lines), *shortened])


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    placed = zip(cells, widths, right, strict=True)
    return _GAP.join(cell.rjust(width) if end else cell.ljust(width) for cell, width, end in placed).rstrip()


def _numeric(cell: str) -> bool:
    if cell == "-":
        return True
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True
