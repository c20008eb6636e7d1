"""Decoding the counts of many windows at once; `fleet.drift.encoding` has the layout of the bytes.

Windows of one version have the same head but for their extremes, so a head is parsed once, and those that are
equal are found by comparing bytes. The numbers of all of them are then taken plane by plane: the bytes of a
plane, of all windows, fill a matrix where the plane before says that a number goes on. What is unusual in any
way is left to `decode_profile`, one by one, which says what is wrong with it; so the outcome is the same by
construction, and a property test holds both against each other.

A step works on so many windows that its matrices stay in the processor's cache. Numbers are taken to have at
most 28 bits, which they nearly always have, and 64 bits where one has more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.drift.cells import MAX_OFFSET, OFFSET_UNITS
from fleet.drift.encoding import (
    DOUBLES,
    MAX_SENT_COUNT,
    MIDDLE,
    NUMBER_SIZE_BYTES,
    Head,
    decode_profile,
    read_heads,
    unpack_body,
)
from fleet.drift.matrix import CountsMatrix, Layout
from fleet.protocol.errors import InvalidMessage

_MOST_COMPARED = 2**42
"""Cells with more values allow every offset that can be written."""

NUMBERS_AT_ONCE = 2**17
FEWEST_AT_ONCE = 32
_PLACES_IN_32_BITS = 4
_FEW, _SMALL = 2**22, 2**30
"""Counts and signed numbers below these make offsets of 32 bits."""

_Bytes = NDArray[np.uint8]
_Numbers = NDArray[np.int32] | NDArray[np.int64]
_Rows = NDArray[np.intp]
_NOTHING = np.zeros(0, dtype=np.intp)


class Decoded(NamedTuple):
    """What was read.

    Attributes:
        matrix: A row for each; empty where it was refused.
        refused: Why, by row.
    """

    matrix: CountsMatrix
    refused: dict[int, InvalidMessage]


def decode_profiles(encoded: Sequence[bytes], layout: Layout, most: int = MAX_SENT_COUNT) -> Decoded:
    """Return the counts of many windows.

    Args:
        encoded: What each window has as counts, see `decode_profile`.
        layout: Of the version that the windows are of; a window may lack features of it.
        most: Largest count that is possible.
    """
    decoded = Decoded(CountsMatrix.empty(layout, len(encoded)), {})
    step = max(FEWEST_AT_ONCE, NUMBERS_AT_ONCE // max(1, layout.columns))
    for first in range(0, len(encoded), step):
        _decode_some(decoded, encoded, range(first, min(first + step, len(encoded))), most)
    return decoded


def layout_of(encoded: Iterable[bytes]) -> Layout:
    """Return the layout that has all features of profiles of one version.

    Raises:
        InvalidMessage: One cannot be read, or two have different cells for a feature.
    """
    cells: dict[str, int] = {}
    for data in encoded:
        for head in read_heads(unpack_body(data))[0]:
            if cells.setdefault(head.name, head.cells) != head.cells:
                raise InvalidMessage(f"Profiles have different cells for {head.name!r:.80}.")
    return Layout(tuple(cells.items()))


class _Template(NamedTuple):
    """A head, which many windows have in common, but for the extremes in it.

    Attributes:
        heads: Its features.
        data: Its bytes.
        columns: Where its numbers stand in the matrix, in the order of the bytes.
        cells: Which of them are of cells that have offsets.
        outer: Which of those are of cells below and above the edges.
    """

    heads: list[Head]
    data: bytes
    columns: _Rows
    cells: _Rows
    outer: _Rows


def _decode_some(decoded: Decoded, encoded: Sequence[bytes], rows: range, most: int) -> None:
    layout = decoded.matrix.layout
    bodies = _bodies(decoded, encoded, rows)
    odd: list[int] = []
    left = np.fromiter(bodies, dtype=np.intp)
    while len(left):
        template = _template(bodies[int(left[0])], layout)
        if template is None:
            odd.append(int(left[0]))
            left = left[1:]
            continue
        is_alike = _alike(bodies, left, template)
        alike, left = left[is_alike], left[~is_alike]
        odd += _fill(decoded.matrix, alike, [bodies[row] for row in alike.tolist()], template, most)
    for row in odd:
        try:
            profile = decode_profile(encoded[row], most)
            layout.check({name: len(counts.cells) for name, counts in profile.items()})
            decoded.matrix.put(row, profile)
        except InvalidMessage as error:
            decoded.refused[row] = error


def _bodies(decoded: Decoded, encoded: Sequence[bytes], rows: range) -> dict[int, bytes]:
    """Return the bodies of rows, none of them longer than any window of its version can be."""
    layout, bodies = decoded.matrix.layout, dict[int, bytes]()
    names = sum(len(name.encode()) for name, _ in layout.features)
    most_bytes = names + NUMBER_SIZE_BYTES * (1 + 5 * len(layout.features) + 2 * layout.columns)
    for row in rows:
        try:
            bodies[row] = unpack_body(encoded[row])
        except InvalidMessage as error:
            decoded.refused[row] = error
            continue
        if len(bodies[row]) > most_bytes:
            size_bytes = len(bodies.pop(row))
            decoded.refused[row] = InvalidMessage(f"A profile of this version has no {size_bytes} bytes.")
    return bodies


def _template(body: bytes, layout: Layout) -> _Template | None:
    """Return the head of a body; None if it is not that of a usual window."""
    try:
        heads, size_bytes = read_heads(body)
        layout.check({head.name: head.cells for head in heads})
    except InvalidMessage:
        return None
    if any(head.has_offsets and head.cells < 3 for head in heads):
        return None
    columns, cells, outer, at = [_NOTHING], [_NOTHING], list[int](), 0
    for head in heads:
        place = layout.places[head.name]
        columns.append(np.arange(layout.starts[place], layout.starts[place + 1]))
        if head.has_offsets:
            before = sum(map(len, cells))
            outer += [before, before + head.cells - 1]
            cells.append(np.arange(at + 1, at + 1 + head.cells))
        at += 1 + head.cells
    outer_cells = np.array(outer, dtype=np.intp)
    return _Template(heads, body[:size_bytes], np.concatenate(columns), np.concatenate(cells), outer_cells)


def _alike(bodies: Mapping[int, bytes], rows: _Rows, template: _Template) -> NDArray[np.bool_]:
    size = len(template.data)
    fixed = np.ones(size, dtype=np.bool_)
    for head in template.heads:
        if head.extremes_at is not None:
            fixed[head.extremes_at : head.extremes_at + DOUBLES.size] = False
    begins = b"".join(bodies[int(row)][:size].ljust(size, b"\0") for row in rows)
    stack = np.frombuffer(begins, dtype=np.uint8).reshape(len(rows), size)
    alike: NDArray[np.bool_] = ((stack == np.frombuffer(template.data, dtype=np.uint8)) | ~fixed).all(axis=1)
    return alike


def _fill(
    matrix: CountsMatrix, rows: _Rows, bodies: Sequence[bytes], template: _Template, most: int
) -> list[int]:
    """Read bodies of equal heads into rows; return the rows that something is wrong with, left empty."""
    reader = _Reader(bodies, template)
    numbers, zigzag = reader.planes(len(template.columns)), reader.planes(len(template.cells))
    cells = numbers[:, template.cells]
    if cells.max(initial=0) >= _FEW or zigzag.max(initial=0) >= _SMALL:
        cells, zigzag = cells.astype(np.int64), zigzag.astype(np.int64)
    offsets = ((zigzag >> 1) ^ -(zigzag & 1)) + MIDDLE * cells
    good = reader.ended & (numbers.max(axis=1, initial=0) <= most) & (offsets.min(axis=1, initial=0) >= 0)
    good &= _are_possible(offsets, cells, template)
    extremes = {head.name: reader.doubles(head.extremes_at) for head in template.heads if head.extremes_at}
    for low, high in extremes.values():
        good &= low <= high
    into = rows[good]
    if not good.all():
        numbers, offsets = numbers[good], offsets[good]
    at = with_offsets = 0
    for head in template.heads:
        place = matrix.layout.places[head.name]
        start, end = matrix.layout.starts[place], matrix.layout.starts[place + 1]
        matrix.numbers[into, start:end] = numbers[:, at : at + 1 + head.cells]
        at += 1 + head.cells
        if head.has_offsets:
            matrix.offsets[into, start + 1 : end] = offsets[:, with_offsets : with_offsets + head.cells]
            with_offsets += head.cells
        matrix.present[into, place], matrix.exact[into, place] = True, head.has_offsets
        if head.name in extremes:
            matrix.lowest[into, place], matrix.highest[into, place] = (e[good] for e in extremes[head.name])
    return [int(row) for row in rows[~good]]


def _are_possible(offsets: _Numbers, cells: _Numbers, template: _Template) -> NDArray[np.bool_]:
    """Return which rows have no offset beyond the width of its cell, see `check_counts`, shape (N,)."""
    outer = template.outer
    into = offsets - (OFFSET_UNITS - 1) * cells
    into[:, outer] = 0
    beyond = offsets[:, outer] > MAX_OFFSET * np.minimum(cells[:, outer].astype(np.int64), _MOST_COMPARED)
    possible: NDArray[np.bool_] = (into.max(axis=1, initial=0) <= 0) & ~beyond.any(axis=1)
    return possible


class _Reader:
    """Takes numbers from many bodies at once.

    Args:
        bodies: At least one.
        template: Their head, after which it begins.
    """

    def __init__(self, bodies: Sequence[bytes], template: _Template) -> None:
        sizes = np.fromiter(map(len, bodies), dtype=np.intp, count=len(bodies))
        self._begins = np.cumsum(sizes) - sizes
        self._ends = self._begins + sizes
        self._at = self._begins + len(template.data)
        self._is_whole = np.ones(len(bodies), dtype=np.bool_)
        # Zeros follow the last body: where one is cut short, there is something to read all the same.
        beyond = NUMBER_SIZE_BYTES * (len(template.columns) + len(template.cells))
        self._joined = b"".join(bodies) + bytes(beyond)

    def doubles(self, at: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the two doubles at a place of each body, shape (N,) each."""
        found = [DOUBLES.unpack_from(self._joined, begin + at) for begin in self._begins.tolist()]
        pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def planes(self, count: int) -> _Numbers:
        """Return the next numbers of each body, shape (N, count); of one that is too short, anything."""
        is_open = np.ones((len(self._at), count), dtype=np.bool_)
        values = np.zeros(is_open.shape, dtype=np.int32)
        for place in range(NUMBER_SIZE_BYTES):
            septets = self._plane(is_open)
            is_open = septets > 0x7F
            septets &= 0x7F
            if place == _PLACES_IN_32_BITS:
                values = values.astype(np.int64)
            values |= septets.astype(values.dtype) << (7 * place)
            if not is_open.any():
                return values
        self._is_whole &= ~is_open.any(axis=1)  # a number is too long
        return values

    def _plane(self, is_open: NDArray[np.bool_]) -> _Bytes:
        """Return the next byte of each number that goes on, and 0 for the others, shape (N, count)."""
        ends = self._at + np.count_nonzero(is_open, axis=1)
        pieces = [self._joined[at:end] for at, end in zip(self._at.tolist(), ends.tolist(), strict=True)]
        taken = np.frombuffer(b"".join(pieces), dtype=np.uint8)
        self._at = ends
        if is_open.all():
            return taken.reshape(is_open.shape).copy()
        plane = np.zeros(is_open.shape, dtype=np.uint8)
        plane[is_open] = taken
        return plane

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Which bodies were taken whole, and nothing beyond them, shape (N,)."""
        ended: NDArray[np.bool_] = self._is_whole & (self._at == self._ends)
        return ended
