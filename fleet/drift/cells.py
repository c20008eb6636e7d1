"""Finding the cells of many values at once; `fleet.drift.profile` says what cells and offsets are.

It is a look into an even grid over the range of the edges, which says at which cell to begin, and a step or
two from there. Few values, and edges that crowd in a corner of their range, are found by binary search. Which
is faster was measured (``make bench-drift``): with 64 bins the grid beats the search from some 500 values on,
by four times at thousands. Sorting a block first (NumPy sorts with the processor's vector instructions) is
faster still at some 500, but not with what offsets need besides, so nothing is left to choose at start-up.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OFFSET_UNITS = 256
"""An offset of so many is the width of the bin."""
MAX_OFFSET = 2**20
"""Most that one value outside the edges adds: 4,096 times the range of the edges."""

_MAX_LAYOUTS = 512
_GRID = 4096
_FEWEST_FOR_GRID = 512
_MOST_STEPS = 3


class Layout(NamedTuple):
    """What counting needs to know of edges.

    Attributes:
        ends: The value at which each cell but the last is over.
        base: From where the offsets of each cell are measured.
        scale: Offset units to the number, by cell.
        most: Most that a value adds, by cell.
        first: For each cell of the grid the cell to begin at; empty where there is no use for a grid.
        per_number: Cells of the grid to the number.
    """

    ends: NDArray[np.float64]
    base: NDArray[np.float64]
    scale: NDArray[np.float64]
    most: NDArray[np.float64]
    first: NDArray[np.intp]
    per_number: float


def cell_of(present: NDArray[np.float64], layout: Layout) -> NDArray[np.intp]:
    """Return the cell of each value."""
    if present.size < _FEWEST_FOR_GRID or not layout.first.size:
        return np.searchsorted(layout.ends[:-1], present, side="right")
    with np.errstate(over="ignore"):
        at = present - layout.base[0]
        at *= layout.per_number
    np.clip(at, -1.0, _GRID, out=at)
    at += 1.0
    cell: NDArray[np.intp] = layout.first[at.astype(np.intp)]
    while (further := present >= layout.ends[cell]).any():
        cell += further
    return cell


@lru_cache(maxsize=_MAX_LAYOUTS)
def layout_of(edges: tuple[float, ...]) -> Layout:
    """Return the layout of ascending edges."""
    at = np.asarray(edges)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        outside = OFFSET_UNITS / (at[-1] - at[0])
        inside = OFFSET_UNITS / np.diff(at)
        per_number = float(_GRID / (at[-1] - at[0]))
        ends = np.concatenate([at[:-1], [np.nextafter(at[-1], np.inf), np.nan]])
    return Layout(
        ends=ends,
        base=np.concatenate([at[:1], at]),
        scale=np.concatenate([[-outside], inside, [outside]]),
        most=np.concatenate([[MAX_OFFSET], np.full(len(inside), OFFSET_UNITS - 1.0), [MAX_OFFSET]]),
        first=_grid(ends, per_number),
        per_number=per_number,
    )


def _grid(ends: NDArray[np.float64], per_number: float) -> NDArray[np.intp]:
    """Return for each cell of the grid, one before the range and one behind it included, where to begin.

    That is half a cell of the grid too early, so that rounding can do no harm.
    """
    if not (np.isfinite(ends[:-1]).all() and 0.0 < per_number < np.inf):
        return np.zeros(0, dtype=np.intp)
    with np.errstate(over="ignore"):
        starts = ends[0] + (np.arange(_GRID + 3) - 1.5) / per_number
    first = np.searchsorted(ends[:-1], starts, side="right")
    steps = np.diff(first[:-1]).max(initial=0)
    return first[:-1] if steps <= _MOST_STEPS else np.zeros(0, dtype=np.intp)
