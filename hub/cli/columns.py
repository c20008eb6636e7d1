"""How wide the columns of a table are where it does not fit: sentences wrap first, identifiers fold last.

Each column has its width as nothing wraps, and its longest word. In this order, the widest column first,
until the table fits:

1. columns are made narrower, none below its longest word: lines end between words;
2. words of columns that name nothing are cut, down to `NARROW`;
3. identifiers are cut: what is left of them would name something else, and cannot be copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

NARROW = 6
"""Characters below which no column is cut for another one's identifiers."""
IDENTIFIERS = frozenset(
    {
        "cohort",
        "dataset",
        "deployment_id",
        "device",
        "device_id",
        "feature",
        "features",
        "key",
        "model",
        "name",
        "number",
        "receiver",
        "request_id",
        "variant",
        "version",
    }
)
"""Fields whose values people type into the next command."""


def column_widths(names: Sequence[str], columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the widths of columns, in characters of a terminal.

    Args:
        names: The field of each column.
        columns: The texts of each column, the heading among them.
        room: Characters for all columns together, without lines and margins between them.
    """
    natural = [min(room, _longest(part for text in texts for part in text.splitlines())) for texts in columns]
    words = [min(room, _longest(word for text in texts for word in text.split())) for texts in columns]
    floors = [
        word if name in IDENTIFIERS else min(word, NARROW) for name, word in zip(names, words, strict=True)
    ]
    widths = natural
    for least in (words, floors, [1] * len(names)):
        widths = _narrowed(widths, least, room)
    return widths


def _narrowed(widths: list[int], least: list[int], room: int) -> list[int]:
    """Make the widest columns narrower until they fit, none below its least width."""
    widths = list(widths)
    for _ in range(sum(widths) - room):
        reducible = [index for index, width in enumerate(widths) if width > least[index]]
        if not reducible:
            break
        widths[max(reducible, key=widths.__getitem__)] -= 1
    return widths


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=1)
