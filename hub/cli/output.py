"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import Progress, ProgressColumn
from rich.table import Table
from rich.text import Text

from hub.cli.columns import column_widths

_ENDLESS = 10_000
_BORDERS, _MARGINS = 1, 3
"""Characters of a table besides its cells: one line at the left; of each column two spaces and a line."""
_CONTROLS = (range(0x09), range(0x0B, 0x20), range(0x7F, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A))
_SHOWN = {code: "\N{REPLACEMENT CHARACTER}" for codes in _CONTROLS for code in codes}
"""Codes by which a text moves the cursor, clears the screen or turns its direction."""


def harmless(text: str) -> str:
    """Return text as it may be shown: devices choose some of it, and terminals obey control codes."""
    return text.translate(_SHOWN)


class _Console(Console):
    """A console on which texts are only shown."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text ready to be shown, see `harmless`."""
        return super().render_str(harmless(text), **options)


console = _Console(highlight=False)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]


def progress(*columns: ProgressColumn, show: bool, stream: TextIO | None = None) -> Progress:
    """Return a progress bar that is seen on a terminal only, and gone when it is done.

    Args:
        columns: What it shows.
        show: Whether people look on.
        stream: Where to draw; None for the standard error.
    """
    terminal = Console(stderr=True, file=stream)
    return Progress(*columns, console=terminal, transient=True, disable=not (show and terminal.is_terminal))


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    console.out(json.dumps(value, indent=2), highlight=False)


def show(value: Any, *, as_json: bool, draw: Callable[[Any], None]) -> None:
    """Show an answer of the API.

    Args:
        value: As the API gave it.
        as_json: Print it whole, as JSON.
        draw: Shows it to people.
    """
    if as_json:
        print_json(value)
    else:
        draw(value)


def print_table(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    as_json: bool,
    title: str | None = None,
    empty: str = "",
) -> None:
    """Print rows.

    Args:
        rows: As the API gave them.
        columns: Column heading by field name.
        as_json: Print the rows whole, as JSON.
        title: Above the table.
        empty: What is said in place of a table without rows; an empty table if nothing is.
    """
    rows = list(rows)
    if as_json:
        print_json(rows)
        return
    if not rows and empty:
        console.out(empty, highlight=False)
        return
    cells = [[harmless(_cell(name, row.get(name))) for name in columns] for row in rows]
    widths: Sequence[int | None] = [None] * len(columns)
    if has_width():
        texts = [list(column) for column in zip(columns.values(), *cells, strict=True)]
        widths = column_widths(list(columns), texts, console.width - _BORDERS - _MARGINS * len(columns))
    table = Table(title=title, title_justify="left")
    for heading, width in zip(columns.values(), widths, strict=True):
        table.add_column(
            heading, overflow="fold", width=width
        )  # an ellipsis would hide what tells rows apart
    for row_cells in cells:
        table.add_row(*map(escape, row_cells))  # names may hold brackets
    if not has_width():
        table.width = natural_width(table)
    console.print(table, crop=has_width())


def has_width() -> bool:
    """Return whether lines end somewhere: a file or program has no width of its own."""
    return console.is_terminal or "COLUMNS" in os.environ


def natural_width(table: Table) -> int:
    """Return how many columns of characters a table takes where nothing is wrapped."""
    return Measurement.get(console, console.options.update(max_width=_ENDLESS), table).maximum


def ago(unix_s: float | None) -> str:
    """Return how long ago a time was, in words as short as they can be."""
    if unix_s is None:
        return "never"
    seconds = max(0, int(time.time() - unix_s))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def utc(unix_s: float) -> str:
    """Return a time as people read it, always in UTC: operators and devices have clocks of many zones."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))


def _cell(name: str, value: Any) -> str:
    if f"_{name}".endswith("_at_s"):
        return ago(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
