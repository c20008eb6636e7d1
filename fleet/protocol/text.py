"""Arrays of text as bytes: the layout of BYTES tensors in the Open Inference Protocol's binary extension.

One element after the other, in row-major order::

    ┌──────────────────────────┬───────────────┐
    │ length, uint32 (LE)      │ UTF-8 bytes   │  … repeated
    └──────────────────────────┴───────────────┘

Source: "Binary tensor data extension" of the KServe and Triton protocol documents.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidMessage

_LENGTH = struct.Struct("<I")


def encode_text(values: NDArray[np.str_] | NDArray[np.object_]) -> bytes:
    """Return an array of text, of any shape, as bytes."""
    encoded = [str(value).encode() for value in values.ravel()]
    return b"".join(part for data in encoded for part in (_LENGTH.pack(len(data)), data))


def decode_text(data: bytes, shape: Sequence[int]) -> NDArray[np.object_]:
    """Return the array that the bytes lay out.

    Args:
        data: As `encode_text` wrote it.
        shape: Of the array.

    Raises:
        InvalidMessage: The bytes do not hold exactly that many texts, or one is not UTF-8.
    """
    values: list[str] = []
    position = 0
    try:
        while position < len(data):
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size
            if length > len(data) - position:
                raise InvalidMessage("An element of text is longer than what holds it.")
            values.append(data[position : position + length].decode())
            position += length
    except (struct.error, UnicodeDecodeError) as error:
        raise InvalidMessage("The bytes are not a sequence of texts.") from error
    if len(values) != math.prod(shape):
        raise InvalidMessage(f"{len(values)} texts were found where {math.prod(shape)} are stated.")
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(tuple(shape))
