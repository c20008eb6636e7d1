"""A confusion matrix as a heat map: rows are the true classes, columns what was answered.

A cell is the darker the greater its share of the row, which is the share of that class's samples. Against a
map of before, a cell that changed has a frame and the change written in it; without one the counts are
written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converters.page.markup import Markup, element

Counts = Sequence[Sequence[int]]

_SIDE = 340.0
_LETTER_WIDTH = 6.2
_LETTERS = 10
_DARK = 0.45
"""Share from which a cell is too dark for dark text."""

_FAINTEST = 0.12
_LEGIBLE = 15.0
"""Least side of a cell that has room for a number."""


@dataclass(frozen=True)
class _Cell:
    true: str
    answered: str
    count: int
    share: float
    change: int

    @property
    def style(self) -> str:
        return "cell right" if self.true == self.answered else "cell wrong"

    @property
    def opacity(self) -> float:
        """Lets a single sample be seen next to a full diagonal."""
        return max(self.share, _FAINTEST) if self.count else 0.0


def heat_map(counts: Counts, classes: Sequence[str], *, title: str, before: Counts | None = None) -> Markup:
    """Return the plot.

    Args:
        counts: Shape (C, C).
        classes: C names.
        title: What it shows.
        before: Of the source, shape (C, C); None where this is the source's.
    """
    side = min(34.0, _SIDE / len(classes))
    names = [name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…" for name in classes]
    margin = max(map(len, names)) * _LETTER_WIDTH + 26
    upright = max(map(len, names)) * _LETTER_WIDTH <= 0.85 * side
    top = 34.0 if upright else margin
    extent = side * len(classes)
    return element(
        "svg",
        element("title", title),
        element("desc", _described(counts, before)),
        _names(names, side, margin, top, upright=upright),
        (
            _cell(cell, margin + column * side, top + row * side, side, first=before is None)
            for row, column, cell in _cells(counts, classes, before)
        ),
        element("text", "answered", x=margin + extent / 2, y=12, text_anchor="middle", class_="axis"),
        element(
            "text",
            "true",
            x=12,
            y=top + extent / 2,
            text_anchor="middle",
            class_="axis",
            transform=f"rotate(-90 12 {top + extent / 2:.1f})",
        ),
        viewBox=f"0 0 {margin + extent + 2:.1f} {top + extent + 2:.1f}",
        style=f"max-width:{margin + extent + 2:.0f}px",
        role="img",
        class_="plot heat-map",
    )


def changed(counts: Counts, before: Counts) -> int:
    """Return how many samples stand in another cell than before, at least: two that swap do not show."""
    pairs = zip(counts, before, strict=True)
    return sum(abs(a - b) for now, then in pairs for a, b in zip(now, then, strict=True)) // 2


def _cells(counts: Counts, classes: Sequence[str], before: Counts | None) -> Iterator[tuple[int, int, _Cell]]:
    then = counts if before is None else before
    for row, of_class in enumerate(counts):
        total = max(1, sum(of_class))
        for column, count in enumerate(of_class):
            change = count - then[row][column]
            yield row, column, _Cell(classes[row], classes[column], count, count / total, change)


def _names(
    names: Sequence[str], side: float, margin: float, top: float, *, upright: bool
) -> Iterator[Markup]:
    for number, name in enumerate(names):
        middle = side * (number + 0.5)
        yield element("text", name, x=margin - 6, y=top + middle + 4, text_anchor="end", class_="tick")
        x = margin + middle
        if upright:
            yield element("text", name, x=x, y=top - 6, text_anchor="middle", class_="tick")
        else:
            turn = f"rotate(-90 {x:.1f} {top - 6:.1f})"
            yield element("text", name, x=x, y=top - 2, text_anchor="start", class_="tick", transform=turn)


def _cell(cell: _Cell, x: float, y: float, side: float, *, first: bool) -> tuple[Markup | None, ...]:
    """Draw a cell at its place; the first map has counts written in it, later ones changes."""
    inset = 1.0 if cell.change else 0.0  # within its neighbours' frames
    change = f"{cell.change:+d}".replace("-", "−") if cell.change else ""
    text = str(cell.count or "") if first else change
    said = f"true {cell.true}, answered {cell.answered}: {cell.count}"
    return (
        element("rect", x=x, y=y, width=side, height=side, class_=cell.style, fill_opacity=cell.opacity),
        element(
            "g",
            element("title", f"{said} ({change} against the source)" if change else said),
            element(
                "rect",
                x=x + inset,
                y=y + inset,
                width=side - 2 * inset,
                height=side - 2 * inset,
                class_="cell-frame changed" if cell.change else "cell-frame",
            ),
        ),
        element(
            "text",
            text,
            x=x + side / 2,
            y=y + side / 2 + 4,
            text_anchor="middle",
            class_="cell-text on" if cell.share > _DARK else "cell-text",
        )
        if text and side >= _LEGIBLE
        else None,
    )


def _described(counts: Counts, before: Counts | None) -> str:
    right = sum(row[number] for number, row in enumerate(counts))
    total = sum(map(sum, counts))
    moved = "" if before is None else f" At least {changed(counts, before)} are answered in another way."
    return f"{right} of {total} samples are answered with their class.{moved}"
