"""Encoding the counts of many windows at once, for `fleet.drift.batch` and `fleet.drift.encoding` to read.

Windows with the same features, offsets and extremes have heads that differ in the extremes alone, and are
written together: plane by plane, for all of them, and then each window's pieces are joined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleet.drift.batch import FEWEST_AT_ONCE, NUMBERS_AT_ONCE
from fleet.drift.encoding import DOUBLES, MIDDLE, pack_body, read_heads, write_heads
from fleet.drift.matrix import CountsMatrix, Integers

MOST_SIGNED = 2**54
"""Offsets are written as differences below this; a feature with larger ones is written without."""

_Rows = NDArray[np.intp]


def encode_profiles(matrix: CountsMatrix, level: int = 0) -> list[bytes]:
    """Return the bytes of each row, which `decode_profile` reads; a sum's with a limit of its own.

    Args:
        matrix: The counts.
        level: Of compression, 0 (none) to 9.
    """
    step = max(FEWEST_AT_ONCE, NUMBERS_AT_ONCE // max(1, matrix.layout.columns))
    encoded: list[bytes] = []
    for first in range(0, len(matrix.numbers), step):
        some = matrix.rows(slice(first, first + step))
        encoded += [pack_body(body, level) for body in _encode_some(some)]
    return encoded


def _encode_some(matrix: CountsMatrix) -> list[bytes]:
    """Return the bodies of all rows."""
    signed = matrix.offsets - MIDDLE * matrix.numbers
    if max(signed.max(initial=0), -signed.min(initial=0)) >= MOST_SIGNED:
        far = np.maximum.reduceat(np.abs(signed), matrix.layout.starts[:-1], axis=1) >= MOST_SIGNED
        matrix = matrix._replace(exact=matrix.exact & ~far)
    zigzag = (signed << 1) ^ (signed >> 63)
    kinds = np.concatenate([matrix.present, matrix.exact, matrix.lowest <= matrix.highest], axis=1)
    bodies = [b""] * len(kinds)
    for kind, rows in _alike_rows(kinds):
        present, exact, extremes = np.split(kind, 3)
        starts = [_heads(matrix, rows, (present, present & exact, present & extremes))]
        starts += _planes(matrix.numbers[rows][:, matrix.layout.spread(present)])
        starts += _planes(zigzag[rows][:, matrix.layout.spread(present & exact) & ~matrix.layout.is_missing])
        for row, pieces in zip(rows.tolist(), zip(*starts, strict=True), strict=True):
            bodies[row] = b"".join(pieces)
    return bodies


def _alike_rows(kinds: NDArray[np.bool_]) -> list[tuple[NDArray[np.bool_], _Rows]]:
    """Return the rows that are equal, for each kind."""
    rows_of: dict[bytes, list[int]] = {}
    for row, kind in enumerate(np.packbits(kinds, axis=1)):
        rows_of.setdefault(kind.tobytes(), []).append(row)
    return [(kinds[rows[0]], np.array(rows, dtype=np.intp)) for rows in rows_of.values()]


def _heads(
    matrix: CountsMatrix,
    rows: _Rows,
    kind: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]],
) -> list[bytes]:
    """Return the heads of rows that have the same features, offsets and extremes."""
    present, exact, extremes = kind
    head = write_heads(
        (name, cells, bool(exact[place]), (0.0, 0.0) if extremes[place] else None)
        for place, (name, cells) in enumerate(matrix.layout.features)
        if present[place]
    )
    heads = np.tile(np.frombuffer(head, dtype=np.uint8), (len(rows), 1))
    for each in read_heads(head)[0]:
        if each.extremes_at is not None:
            place = matrix.layout.places[each.name]
            pairs = np.stack([matrix.lowest[rows, place], matrix.highest[rows, place]], axis=1).astype("<f8")
            heads[:, each.extremes_at : each.extremes_at + DOUBLES.size] = pairs.view(np.uint8)
    return [row.tobytes() for row in heads]


def _planes(values: Integers) -> list[list[bytes]]:
    """Return the planes of rows of numbers: of each what every row has of it."""
    planes: list[list[bytes]] = []
    is_open = np.ones(values.shape, dtype=np.bool_)
    while is_open.any():
        more = values > 0x7F
        septets = ((values & 0x7F) | (more.astype(np.int64) << 7)).astype(np.uint8)
        taken = septets[is_open].tobytes()
        ends = np.cumsum(np.count_nonzero(is_open, axis=1)).tolist()
        planes.append([taken[begin:end] for begin, end in zip([0, *ends], ends, strict=False)])
        is_open, values = more, values >> 7
    return planes
