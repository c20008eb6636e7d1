"""Counting many values at once: how many fall into each cell, and how far into it they are.

`fleet.drift.profile` says what cells and offsets are. What a value adds depends on the edges alone, never on
the values beside it or on the way it was counted, so that counts add up exactly in any order.

**The grid** has `GRID` even steps from the second edge to the last but one; the outermost two may be far
out. Which step a value is in takes a subtraction, a multiplication, and rounding down. Edges are put on the
grid by the same arithmetic, which never puts the smaller of two numbers behind the other: so all values of a
step that no edge is in are in one cell, exactly. Such a step is *plain*, and its values all count as far into
the cell as its middle is. Of the others the cell is found by comparing with the edges, and how far they are
into it is measured. With 64 bins that is one value in twenty: the outermost two bins, and 63 of 4,096 steps.

Many values are counted by step, by one ``bincount``, and what was counted is then added up by cell; of few
values (`FEWEST_FOR_STEPS`) each looks up what its step stands for. Where edges crowd, so that plain steps
would hold less than half of the reference, there is no grid, and all values are found by binary search.

**What else was measured** (``make bench-drift``), with 64 bins: of many values binary search takes six times
as long, and so does sorting first, for all that NumPy sorts with AVX-512 where the processor has it. Of some
hundreds sorting alone is faster, but not with what offsets need besides. So nothing is left to choose at
start-up.
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
GRID = 4096
FEWEST_FOR_STEPS = 4096

_MAX_LAYOUTS = 512
_BLOCK = 16_384
"""Values at a time: they, and what is worked out of them, stay in a processor's second cache."""
_LEAST_PLAIN = 0.5
_MOST_COMPARISONS = 4

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]


class Tally(NamedTuple):
    """What values come to.

    Attributes:
        cells: How many are in each cell, shape (cells,).
        offsets: How far they are into it, added up, shape (cells,).
        missing: How many are NaN.
        minimum: The smallest of the others; None if there are none.
        maximum: The largest of them.
    """

    cells: NDArray[np.int64]
    offsets: NDArray[np.int64]
    missing: int
    minimum: float | None
    maximum: float | None


class Grid(NamedTuple):
    """The even steps; shape of arrays: (GRID + 2,), with what is before them and what is behind.

    Attributes:
        start: Where the step before the first begins.
        per_number: Steps to the number.
        is_plain: Whether no edge is in the step; not so before and behind.
        cell: Of a plain step the cell of its values, of another the first that they can be in.
        offset: How far the values of a plain step are into their cell; 0 for others.
        cells: The cells that steps have, shape (cells with steps,).
        first_steps: The first step of each of them.
    """

    start: float
    per_number: float
    is_plain: NDArray[np.bool_]
    cell: Numbers
    offset: NDArray[np.int64]
    cells: Numbers
    first_steps: Numbers


class Layout(NamedTuple):
    """What counting needs to know of edges.

    Attributes:
        ends: The value at which each cell is over; NaN for the last.
        base: From where the offsets of each cell are measured.
        scale: Offset units to the number, by cell.
        most: Most that a value adds, by cell.
        grid: None where there is no use for one.
    """

    ends: Floats
    base: Floats
    scale: Floats
    most: Floats
    grid: Grid | None


def tally(values: NDArray[np.generic], layout: Layout) -> Tally:
    """Count values.

    Args:
        values: Shape (N,), of any type that has a value as a float.
        layout: Of the edges.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # numbers that are not finite are seen to
        if layout.grid is None:
            return _measured(np.asarray(values, dtype=np.float64), layout)
        if len(values) < FEWEST_FOR_STEPS:
            return _looked_up(np.asarray(values, dtype=np.float64), layout, layout.grid)
        return _by_step(values, layout, layout.grid)


def _measured(values: Floats, layout: Layout) -> Tally:
    """Count without a grid."""
    cell, offset = _placed(values, np.searchsorted(layout.ends[:-1], values, side="right"), layout)
    return _added_up(cell, offset, layout, _extremes(values))


def _looked_up(values: Floats, layout: Layout, grid: Grid) -> Tally:
    """Count few values."""
    step = _steps(values, grid, np.empty(len(values)), np.empty(len(values), dtype=np.intp))
    cell, offset = grid.cell[step], grid.offset[step].astype(np.float64)
    others = np.flatnonzero(~grid.is_plain[step])
    if others.size:
        cell[others], offset[others] = _compared(values[others], cell[others], layout, grid)
    return _added_up(cell, offset, layout, _extremes(values))


def _by_step(values: NDArray[np.generic], layout: Layout, grid: Grid) -> Tally:
    """Count many values, block by block."""
    by_step = np.zeros(GRID + 2, dtype=np.intp)
    room, steps = np.empty(_BLOCK), np.empty(_BLOCK, dtype=np.intp)
    is_other = ~grid.is_plain
    others: list[Floats] = []
    their_steps: list[Numbers] = []
    for start in range(0, len(values), _BLOCK):
        block = np.asarray(values[start : start + _BLOCK], dtype=np.float64)
        step = _steps(block, grid, room[: len(block)], steps[: len(block)])
        by_step += np.bincount(step, minlength=GRID + 2)
        places = np.flatnonzero(is_other[step])
        others.append(block[places])
        their_steps.append(step[places])
    by_step *= grid.is_plain
    rest = np.concatenate(others)
    cell, offset = _compared(rest, grid.cell[np.concatenate(their_steps)], layout, grid)
    low, high = _extremes(rest)
    if low is None or high is None or not (low < grid.start and high >= layout.ends[-3]):
        low, high = _extremes(values)  # those of the rest are only sure to be all others' if they are outside
    counted = _added_up(cell, offset, layout, (low, high))
    counted.cells[grid.cells] += np.add.reduceat(by_step, grid.first_steps)
    counted.offsets[grid.cells] += np.add.reduceat(by_step * grid.offset, grid.first_steps)
    return counted


def _steps(values: Floats, grid: Grid, room: Floats, out: Numbers) -> Numbers:
    """Return the step of each value; what is not on the grid, NaN included, is before or behind it.

    Args:
        values: Shape (N,).
        grid: Whose steps.
        room: Memory of that shape, to work in.
        out: Memory of that shape, for the steps.
    """
    np.subtract(values, grid.start, out=room)
    np.multiply(room, grid.per_number, out=room)
    np.copyto(out, room, casting="unsafe")  # rounds towards zero; NaN becomes zero, or negative
    positive = out.view(np.uintp)  # where what is negative is great
    np.minimum(positive, GRID + 1, out=positive)
    return out


def _compared(values: Floats, first: Numbers, layout: Layout, grid: Grid) -> tuple[Numbers, Floats]:
    """Return cell and offset of values by comparing them with the edges.

    Args:
        values: Shape (N,).
        first: Of each the first cell that it can be in, unless it is before the grid; it is overwritten.
        layout: Of the edges.
        grid: On which the values are.
    """
    first[values < grid.start] = 0
    for _ in range(_MOST_COMPARISONS):
        further = values >= layout.ends[first]
        if not further.any():
            return _placed(values, first, layout)
        first += further
    return _placed(values, np.searchsorted(layout.ends[:-1], values, side="right"), layout)


def _placed(values: Floats, cell: Numbers, layout: Layout) -> tuple[Numbers, Floats]:
    """Return the cells, with one more for NaN, and how far the values are into them."""
    offset = values - layout.base[cell]
    offset *= layout.scale[cell]
    np.floor(offset, out=offset)
    np.fmin(offset, layout.most[cell], out=offset)
    missing = np.isnan(values)
    if missing.any():
        cell[missing], offset[missing] = len(layout.base), 0.0
    return cell, offset


def _added_up(
    cell: Numbers, offset: Floats, layout: Layout, extremes: tuple[float | None, float | None]
) -> Tally:
    width = len(layout.base) + 1
    cells = np.bincount(cell, minlength=width).astype(np.int64, copy=False)
    offsets = np.bincount(cell, weights=offset, minlength=width).astype(np.int64)
    return Tally(cells[:-1], offsets[:-1], int(cells[-1]), *extremes)


def _extremes(values: NDArray[np.generic]) -> tuple[float | None, float | None]:
    """Return the smallest and the largest value that is a number."""
    if not values.size:
        return None, None
    low, high = float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
    return (None, None) if np.isnan(low) else (low, high)


@lru_cache(maxsize=_MAX_LAYOUTS)
def layout_of(edges: tuple[float, ...]) -> Layout:
    """Return the layout of ascending edges."""
    at = np.asarray(edges)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        outside = OFFSET_UNITS / (at[-1] - at[0])
        inside = OFFSET_UNITS / np.diff(at)
        ends = np.concatenate([at[:-1], [np.nextafter(at[-1], np.inf), np.nan]])
        grid = _grid(at)
    return Layout(
        ends=ends,
        base=np.concatenate([at[:1], at]),
        scale=np.concatenate([[-outside], inside, [outside]]),
        most=np.concatenate([[MAX_OFFSET], np.full(len(inside), OFFSET_UNITS - 1.0), [MAX_OFFSET]]),
        grid=grid,
    )


def _grid(edges: Floats) -> Grid | None:
    if len(edges) < 4:  # all bins would be outermost ones
        return None
    per_number = float(GRID / (edges[-2] - edges[1]))
    if not 0.0 < per_number < np.inf:
        return None
    start = float(edges[1] - 1.0 / per_number)
    at = (edges - start) * per_number  # as in `_steps`
    step = np.clip(at, 0.0, GRID + 1).astype(np.intp)
    every = np.arange(GRID + 2)
    is_plain = (every > 0) & (every <= GRID)
    is_plain[step] = False
    cell = np.searchsorted(step, every, side="left")
    left, right = at[cell[is_plain] - 1], at[cell[is_plain]]
    middle = OFFSET_UNITS * (every[is_plain] + 0.5 - left) / (right - left)
    offset = np.zeros(GRID + 2, dtype=np.int64)
    offset[is_plain] = np.clip(middle, 0.0, OFFSET_UNITS - 1).astype(np.int64)
    plain_of_bin = np.bincount(cell[is_plain], minlength=len(edges))[1:] / np.diff(at)
    if plain_of_bin.mean() < _LEAST_PLAIN:
        return None
    return Grid(start, per_number, is_plain, cell, offset, *np.unique(cell, return_index=True))
