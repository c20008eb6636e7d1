"""Horizontal bars: one for each layer, the longest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from converters.page.axes import linear_axis
from converters.page.markup import Markup, element

WIDTH = 720
LABELS, RIGHT, TOP, BOTTOM = 200, 120, 8, 40
_ROW = 24
_THICKNESS = 14
_LETTERS = 27
"""Letters of a label that fit beside the bars."""


class Bar(NamedTuple):
    """One bar.

    Attributes:
        label: What it stands for.
        value: Its length, at least 0.
        text: The value as it is written beside the bar.
        marked: Whether to draw it as one that stands out.
    """

    label: str
    value: float
    text: str
    marked: bool = False


def bars(rows: Sequence[Bar], *, title: str, axis: str) -> Markup:
    """Return the plot.

    Args:
        rows: At least one, from the top.
        title: What it shows.
        axis: What the lengths are.
    """
    height = TOP + _ROW * len(rows) + BOTTOM
    bottom = height - BOTTOM
    longest = max(row.value for row in rows) or 1.0
    across = linear_axis([0.0, longest], LABELS, WIDTH - RIGHT)
    zero = across.place(0.0)
    marks = [tick for tick in across.ticks if tick >= 0.0]
    return element(
        "svg",
        element("title", title),
        element("desc", "; ".join(f"{row.label}: {row.text}" for row in rows)),
        (
            (
                element("line", x1=across.place(t), x2=across.place(t), y1=TOP, y2=bottom, class_="grid"),
                element(
                    "text", f"{t:.4g}", x=across.place(t), y=bottom + 16, text_anchor="middle", class_="tick"
                ),
            )
            for t in marks
        ),
        (
            _row(row, TOP + _ROW * number + _ROW / 2, zero, across.place(row.value))
            for number, row in enumerate(rows)
        ),
        element(
            "text", axis, x=(LABELS + WIDTH - RIGHT) / 2, y=height - 6, text_anchor="middle", class_="axis"
        ),
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        class_="plot bars",
    )


def _row(row: Bar, middle: float, zero: float, end: float) -> tuple[Markup, ...]:
    shown = row.label if len(row.label) <= _LETTERS else row.label[: _LETTERS - 1] + "…"
    return (
        element(
            "text",
            shown,
            element("title", row.label),
            x=zero - 8,
            y=middle + 4,
            text_anchor="end",
            class_="label",
        ),
        element(
            "rect",
            x=zero,
            y=middle - _THICKNESS / 2,
            width=max(end - zero, 1.0),
            height=_THICKNESS,
            class_="bar marked" if row.marked else "bar",
        ),
        element("text", row.text, x=end + 6, y=middle + 4, class_="tick"),
    )
