"""How a blob is cut into chunks, and how missing chunks are named.

Chunk ``i`` of a blob of ``n`` bytes is bytes ``[i * S, min(n, (i + 1) * S))`` with ``S`` =
`CHUNK_SIZE_BYTES`. An empty blob has no chunks. Missing chunks are named as ranges ``(first, count)``,
so that "everything" and "all but a few" are both short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

CHUNK_SIZE_BYTES = 64 * 1024
"""Size of every chunk but the last. A quarter of the greatest size that the design allows."""

MAX_BLOB_SIZE_BYTES = 2 * 1024**3
"""Largest blob: 2 GiB, the limit of an ONNX protobuf as well."""

MAX_RANGES = 64
"""Most ranges in one request; a device with more holes asks again after these are filled."""


def chunk_count(size_bytes: int) -> int:
    """Return how many chunks a blob of this size has."""
    return -(-size_bytes // CHUNK_SIZE_BYTES)


def chunk_size_bytes(size_bytes: int, index: int) -> int:
    """Return the size of one chunk of a blob of ``size_bytes``; 0 for an index outside it."""
    return max(0, min(CHUNK_SIZE_BYTES, size_bytes - index * CHUNK_SIZE_BYTES)) if index >= 0 else 0


def ranges_of(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending indices as ``(first, count)`` ranges.

    Args:
        indices: Chunk numbers in ascending order without repeats.
    """
    ranges: list[tuple[int, int]] = []
    for index in indices:
        if ranges and ranges[-1][0] + ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((index, 1))
    return ranges


def indices_of(ranges: Iterable[tuple[int, int]], limit: int) -> Iterator[int]:
    """Yield the chunk numbers that the ranges name, none at or above ``limit``.

    Args:
        ranges: ``(first, count)`` pairs, as received; they may overlap or exceed the blob.
        limit: Number of chunks that the blob has.
    """
    for first, count in ranges:
        yield from range(max(first, 0), min(first + count, limit))
