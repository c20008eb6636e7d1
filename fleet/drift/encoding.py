"""How counts travel: as one string of bytes within a telemetry window, a few hundred for all features.

::

    bytes   meaning
    1       version of this layout: 1
    1       0: the body follows as it is; 1: it is compressed by zlib (RFC 1950)
    …       body

    body
    number  features F
    F times, the head of a feature
      number  length of the name, then the name in UTF-8
      number  cells C
      1       sum of: 1 there are offsets; 2 there are a minimum and a maximum
      8 + 8   minimum and maximum, if so: IEEE 754 double, little-endian
    planes                  for each feature, in the same order, missing and then the C cells
    planes                  for each feature that has them, for each cell: how far its offset is above 128
                            times the cell, as a signed number

A number is a varint (unsigned LEB128, at most 8 bytes): seven bits to a byte, the lowest first, the highest
bit of a byte says that another follows. Planes are such varints with their bytes in another order: the first
bytes of all of them, then the second bytes of those that have one, and so on, so that the compressor finds
together what is alike. A signed number s is the number 2s, or -2s - 1 where it is negative ("zigzag"). Values
are in the middle of their bins on average, so the signed numbers are small, and small numbers are short.
(Cells as differences from their mean, or from one another, were tried too: they save nothing.)

What arrives is checked before anything of its size is taken: the body is at most `MAX_BODY_SIZE_BYTES`, and
decompression stops there; there are as many numbers as the heads ask for, and not a byte more. What comes out
can be of some values, see `fleet.drift.profile.check_counts`; whether it is in the layout of a version is the
caller's to check, `fleet.protocol.windows.check_window`. Many at once are read by `fleet.drift.batch`.

Sources: DWARF 5, section 7.6 (LEB128); Protocol Buffers, "Encoding" (zigzag).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.drift.cells import MAX_OFFSET
from fleet.drift.profile import MAX_COUNT, FeatureCounts, Profile, check_counts
from fleet.protocol.errors import InvalidMessage

VERSION = 1
MAX_BODY_SIZE_BYTES = 512 * 1024
MAX_FEATURES = 256
MAX_SENT_COUNT = MAX_COUNT // MAX_OFFSET
"""In one window; the offsets of so many values are still exact."""
MAX_NAME_SIZE_BYTES = 1024
COMPRESSION_LEVEL = 6
"""Measured by ``make bench-drift``: 9 saves next to nothing."""

MIDDLE = 128
NUMBER_SIZE_BYTES = 8
DOUBLES = struct.Struct("<dd")
_STORED, _COMPRESSED = 0, 1
_OFFSETS, _EXTREMES = 1, 2
_NOTHING = np.zeros(0, dtype=np.int64)


class Head(NamedTuple):
    """A feature without its numbers.

    Attributes:
        name: Its name.
        cells: How many it has.
        has_offsets: Whether there are any.
        extremes_at: Where in the body its minimum and maximum begin; None if it has none.
    """

    name: str
    cells: int
    has_offsets: bool
    extremes_at: int | None


def encode_profile(profile: Profile, level: int = COMPRESSION_LEVEL) -> bytes:
    """Return the bytes of counts that passed `check_counts`.

    Args:
        profile: The counts.
        level: Of compression, 0 (none) to 9.
    """
    return pack_body(_body(profile), level)


def decode_profile(data: bytes, most: int = MAX_SENT_COUNT) -> Profile:
    """Return the counts in the bytes.

    Args:
        data: What `encode_profile` returned, or a device claims so.
        most: Largest count that is possible; more in a sum of windows than in one.

    Raises:
        InvalidMessage: They are not counts, or of another layout than this release knows.
    """
    body = unpack_body(data)
    heads, size_bytes = read_heads(body)
    reader = _Reader(body, size_bytes)
    cells = reader.planes(sum(1 + head.cells for head in heads))
    offsets = _unzigzag(reader.planes(sum(head.cells for head in heads if head.has_offsets)))
    reader.end()
    profile: Profile = {}
    for head in heads:
        after = head.cells if head.has_offsets else 0
        extremes = None if head.extremes_at is None else DOUBLES.unpack_from(body, head.extremes_at)
        profile[head.name] = _counts(head, extremes, cells[: 1 + head.cells], offsets[:after], most)
        cells, offsets = cells[1 + head.cells :], offsets[after:]
    return profile


def unpack_body(data: bytes) -> bytes:
    """Return the body, decompressed.

    Raises:
        InvalidMessage: It is of another layout than this release knows, or too long.
    """
    if len(data) < 2 or data[0] != VERSION or data[1] not in (_STORED, _COMPRESSED):
        raise InvalidMessage(
            f"A profile begins with {data[:2].hex() or 'nothing'}, which is no known layout."
        )
    body = data[2:] if data[1] == _STORED else _decompressed(data[2:])
    if len(body) > MAX_BODY_SIZE_BYTES:
        raise InvalidMessage(f"A profile has {len(body)} bytes or more; {MAX_BODY_SIZE_BYTES} are allowed.")
    return body


def pack_body(body: bytes, level: int) -> bytes:
    """Return the bytes of a body, compressed where that helps."""
    compressed = zlib.compress(body, level) if level else body
    if len(compressed) < len(body):
        return bytes((VERSION, _COMPRESSED)) + compressed
    return bytes((VERSION, _STORED)) + body


def read_heads(body: bytes) -> tuple[list[Head], int]:
    """Return the heads of the features, and how many bytes they take.

    Raises:
        InvalidMessage: They cannot be understood.
    """
    reader = _Reader(body)
    heads = [_head(reader) for _ in range(reader.number(MAX_FEATURES))]
    if len({head.name for head in heads}) != len(heads):
        raise InvalidMessage("A profile has a feature twice.")
    return heads, reader.position


def write_heads(heads: Iterable[tuple[str, int, bool, tuple[float, float] | None]]) -> bytes:
    """Return the bytes of the heads of features: name, cells, whether there are offsets, and extremes."""
    written, number = [], 0
    for name, cells, has_offsets, extremes in heads:
        raw = name.encode()
        flags = _OFFSETS * has_offsets + _EXTREMES * (extremes is not None)
        written += [_varint(len(raw)), raw, _varint(cells), bytes((flags,))]
        if extremes is not None:
            written.append(DOUBLES.pack(*extremes))
        number += 1
    return _varint(number) + b"".join(written)


def _body(profile: Profile) -> bytes:
    heads = write_heads(
        (name, len(counts.cells), bool(counts.offsets), _extremes(counts)) for name, counts in profile.items()
    )
    numbers, signed = [_NOTHING], [_NOTHING]
    for counts in profile.values():
        cells = np.asarray(counts.cells, dtype=np.int64)
        numbers += [np.array([counts.missing]), cells]
        if counts.offsets:
            signed.append(np.asarray(counts.offsets, dtype=np.int64) - MIDDLE * cells)
    return heads + _planes(np.concatenate(numbers)) + _planes(_zigzag(np.concatenate(signed)))


def _extremes(counts: FeatureCounts) -> tuple[float, float] | None:
    return None if counts.minimum is None or counts.maximum is None else (counts.minimum, counts.maximum)


def _counts(
    head: Head,
    extremes: tuple[float, float] | None,
    numbers: NDArray[np.int64],
    signed: NDArray[np.int64],
    most: int,
) -> FeatureCounts:
    cells = numbers[1:]
    if numbers.max() > most:
        raise InvalidMessage(f"A count of {head.name!r:.80} is impossible.")
    offsets = signed + MIDDLE * cells if head.has_offsets else signed
    if offsets.min(initial=0) < 0:
        raise InvalidMessage(f"An offset of {head.name!r:.80} is negative.")
    low, high = extremes or (None, None)
    counts = FeatureCounts(cells.tolist(), int(numbers[0]), low, high, offsets.tolist())
    check_counts(counts)
    return counts


def _decompressed(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(data, MAX_BODY_SIZE_BYTES + 1)
    except zlib.error as error:
        raise InvalidMessage(f"A profile cannot be decompressed: {error}.") from error
    if len(body) <= MAX_BODY_SIZE_BYTES and (not stream.eof or stream.unused_data):
        raise InvalidMessage("A profile is cut short, or something follows it.")
    return body


def _head(reader: _Reader) -> Head:
    try:
        name = reader.take(reader.number(MAX_NAME_SIZE_BYTES)).decode()
    except UnicodeDecodeError as error:
        raise InvalidMessage("The name of a feature is not text.") from error
    cells = reader.number(MAX_BODY_SIZE_BYTES)
    flags = reader.take(1)[0]
    if flags > _OFFSETS + _EXTREMES:
        raise InvalidMessage(f"The counts of {name!r:.80} have something that this release does not know.")
    at = reader.position if flags & _EXTREMES else None
    if at is not None:
        reader.take(DOUBLES.size)
    return Head(name, cells, bool(flags & _OFFSETS), at)


class _Reader:
    """Takes bytes one after the other."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self.position = position

    def take(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            InvalidMessage: There are fewer.
        """
        if size > len(self._data) - self.position:
            raise InvalidMessage("A profile is cut short.")
        self.position += size
        return self._data[self.position - size : self.position]

    def number(self, most: int) -> int:
        """Return the next number.

        Raises:
            InvalidMessage: There is none, or it is larger than allowed here.
        """
        value = 0
        for place in range(NUMBER_SIZE_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                break
        else:
            raise InvalidMessage("A number in a profile is too long.")
        if value > most:
            raise InvalidMessage(f"A profile says {value} where at most {most} is allowed.")
        return value

    def planes(self, count: int) -> NDArray[np.int64]:
        """Return the next numbers, which are laid out in planes.

        Raises:
            InvalidMessage: There are fewer, or one is too long.
        """
        if count > len(self._data) - self.position:
            raise InvalidMessage("A profile is cut short.")
        values, open_ones = np.zeros(count, dtype=np.int64), np.arange(count)
        for place in range(NUMBER_SIZE_BYTES):
            plane = np.frombuffer(self.take(len(open_ones)), dtype=np.uint8)
            values[open_ones] |= (plane & 0x7F).astype(np.int64) << (7 * place)
            open_ones = open_ones[plane > 0x7F]
            if not len(open_ones):
                return values
        raise InvalidMessage("A number in a profile is too long.")

    def end(self) -> None:
        """Check that all is taken.

        Raises:
            InvalidMessage: Something is left.
        """
        if self.position != len(self._data):
            raise InvalidMessage("Something follows a profile.")


def _varint(value: int) -> bytes:
    septets = bytearray()
    while value > 0x7F:
        septets.append(value & 0x7F | 0x80)
        value >>= 7
    septets.append(value)
    return bytes(septets)


def _planes(values: NDArray[np.int64]) -> bytes:
    """Return the bytes of numbers from 0 to 2^56 - 1, plane by plane."""
    planes = []
    while values.size:
        more = values > 0x7F
        planes.append(((values & 0x7F) | np.where(more, 0x80, 0)).astype(np.uint8).tobytes())
        values = values[more] >> 7
    return b"".join(planes)


def _zigzag(values: NDArray[np.int64]) -> NDArray[np.int64]:
    zigzag: NDArray[np.int64] = np.where(values < 0, -2 * values - 1, 2 * values)
    return zigzag


def _unzigzag(values: NDArray[np.int64]) -> NDArray[np.int64]:
    plain: NDArray[np.int64] = np.where(values & 1, -(values >> 1) - 1, values >> 1)
    return plain
