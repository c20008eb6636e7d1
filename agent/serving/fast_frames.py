r"""The fast path's framing: bytes and what they mean, for the agent and for `agent.client` alike.

Over a Unix stream socket goes one frame after the other; each request is answered by one frame, in order. All
numbers are little-endian::

    ┌─────────────────┬──────────────────────────┬───────────────────────────────┐
    │ header, 32 bytes│ head: tensors described  │ data: their bytes, or text    │
    └─────────────────┴──────────────────────────┴───────────────────────────────┘

    header            offset  size
      magic                0     4   "MFP1"
      kind                 4     1   see `Kind`; an answer's is its request's plus 128
      status               5     1   0 in requests; of an answer 0 good, 1 error
      handle               6     2   number of a model, or of a region
      request id           8     4   any number; the answer has the same
      version             12     4   that is asked for, 0 for whichever answers; of an answer, that answered
      head size           16     4   in bytes
      data size           20     4   in bytes
      prediction id       24     8   to label an answer by; 0 if it cannot be labelled

    one tensor in the head
      name size            0     1   in bytes
      element type         1     1   see `CODES`
      rank                 2     1
      place                3     1   see `Place`
      region               4     4   number of the region; 0 where there is none
      offset               8     8   from the beginning of the data, or of the region; a multiple of 8
      size                16     8   in bytes
      shape               24     8   for each dimension; -1 if it is open (in signatures only)
      name             24+8r         UTF-8, then zeros up to a multiple of 8

Tensors in the data follow one another, each at the next multiple of 8; the data ends with the last of them.
Elements are in row-major order, ``bool`` is a byte of 0 or 1, text is laid out as `fleet.protocol.text` says.
An error's data is its stable code, a zero byte, and a sentence. ``docs/reference/fast-path.md`` tells the
conversation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from fleet.protocol.errors import InvalidMessage, MusterError, error_of

MAGIC = b"MFP1"
HEADER = struct.Struct("<4sBBHIIIIQ")
_FIELDS = struct.Struct("<BBHIIIIQ")  # all but the magic
ANSWER = 0x80
GOOD, ERROR = 0, 1
ALIGNMENT_BYTES = 8
MAX_HEAD_BYTES = 64 * 1024
MAX_RANK = 16
MAX_NAME_BYTES = 255
_TENSOR = struct.Struct("<BBBBIQQ")

CODES = {
    name: code
    for code, name in enumerate(
        (
            *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
            *("float16", "float32", "float64", "str"),
        ),
        start=1,
    )
}
"""Codes of the manifest's element types: ``bool`` 1, ``uint8`` 2, … ``float64`` 12, ``str`` 13."""

ELEMENT_TYPES = {code: name for name, code in CODES.items()}


class Kind(IntEnum):
    """What is asked for."""

    OPEN = 1
    INFER = 2
    FEEDBACK = 3
    SHARE = 4
    UNSHARE = 5
    WINDOW = 6


class Place(IntEnum):
    """Where a tensor is, or is to be put."""

    DATA = 0
    REGION = 1
    ASKED_IN_DATA = 2
    ASKED_IN_REGION = 3


class Header(NamedTuple):
    """A frame's header, all but the magic; the head of this file explains each field."""

    kind: int
    status: int = GOOD
    handle: int = 0
    request_id: int = 0
    version: int = 0
    head_bytes: int = 0
    data_bytes: int = 0
    prediction_id: int = 0

    def pack(self) -> bytes:
        """Return the header's bytes."""
        return HEADER.pack(MAGIC, *self)


class Described(NamedTuple):
    """A tensor as a frame's head describes it; the head of this file explains each field."""

    name: str
    element_type: str
    shape: tuple[int, ...]
    place: Place = Place.DATA
    region: int = 0
    offset: int = 0
    size_bytes: int = 0


def unpack_header(data: bytes | bytearray) -> Header:
    """Return a frame's header.

    Raises:
        InvalidMessage: The bytes do not begin a frame.
    """
    if not data.startswith(MAGIC):
        raise InvalidMessage(f"A frame begins with {MAGIC.decode()}; {bytes(data[:4])!r} came.")
    return Header._make(_FIELDS.unpack_from(data, len(MAGIC)))


def padded(size_bytes: int) -> int:
    """Return a size rounded up to where the next tensor may begin."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def pack_head(tensors: Iterable[Described]) -> bytes:
    """Return the head that describes tensors.

    Raises:
        InvalidMessage: A name is too long.
    """
    parts = []
    for each in tensors:
        name = each.name.encode()
        if len(name) > MAX_NAME_BYTES:
            raise InvalidMessage(f"A tensor's name has {len(name)} bytes; {MAX_NAME_BYTES} are the most.")
        code = CODES.get(each.element_type, 0)
        fields = (len(name), code, len(each.shape), each.place, each.region, each.offset, each.size_bytes)
        parts.append(_TENSOR.pack(*fields))
        parts.append(struct.pack(f"<{len(each.shape)}q", *each.shape))
        parts.append(name.ljust(padded(len(name)), b"\0"))
    return b"".join(parts)


def unpack_head(head: bytes) -> tuple[Described, ...]:
    """Return the tensors that a head describes.

    Raises:
        InvalidMessage: It describes none.
    """
    tensors = []
    position = 0
    try:
        while position < len(head):
            name_bytes, code, rank, place, region, offset, size_bytes = _TENSOR.unpack_from(head, position)
            if rank > MAX_RANK:
                raise InvalidMessage(f"A tensor has {rank} dimensions; {MAX_RANK} are the most.")
            shape = struct.unpack_from(f"<{rank}q", head, position + _TENSOR.size)
            start = position + _TENSOR.size + 8 * rank
            name = head[start : start + name_bytes].decode()
            position = start + padded(name_bytes)
            if position > len(head):
                raise InvalidMessage("The head ends within a tensor's name.")
            element_type = ELEMENT_TYPES.get(code, "")
            tensors.append(Described(name, element_type, shape, Place(place), region, offset, size_bytes))
    except (struct.error, ValueError) as error:
        raise InvalidMessage(f"The head does not describe tensors: {error}.") from error
    return tuple(tensors)


def follow(sizes_bytes: Sequence[int]) -> tuple[list[int], int]:
    """Return where tensors of given sizes begin that follow one another, and where the last ends."""
    offsets, end = [], 0
    for size_bytes in sizes_bytes:
        offsets.append(padded(end))
        end = offsets[-1] + size_bytes
    return offsets, end


def pack_error(error: MusterError) -> bytes:
    """Return the data of an answer that tells of an error."""
    return b"\0".join((error.code.encode(), str(error).encode()))


def unpack_error(data: bytes) -> MusterError:
    """Return the error that an answer tells of."""
    code, _, sentence = data.partition(b"\0")
    return error_of(code.decode("ascii", "replace"))(sentence.decode("utf-8", "replace"))
