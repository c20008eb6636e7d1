"""The protocol's binary tensor extension: tensors as bytes behind the JSON, in requests and in answers.

The header ``Inference-Header-Content-Length`` says how long the JSON is::

    ┌──────────────┬──────────────────┬──────────────────┐
    │ JSON         │ tensor's bytes   │ tensor's bytes   │ …  in the order of the JSON, without padding
    └──────────────┴──────────────────┴──────────────────┘

A tensor that travels so has no ``data`` but the parameter ``binary_data_size``. Its elements are in row-major
order, little-endian; ``BOOL`` is a byte of 0 or 1, ``BYTES`` is laid out as `fleet.protocol.text` says.

Source: "Binary tensor data extension" of the KServe and Triton protocol documents.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.serving.checks import check_values
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.manifest import Tensor
from fleet.protocol.text import decode_text, encode_text

LENGTH_HEADER = "inference-header-content-length"
SIZE_PARAMETER = "binary_data_size"

Parameter = bool | int | float | str
"""What a parameter's value may be."""


class _Sent(Protocol):
    """A tensor as it is sent, as far as this extension goes."""

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, Parameter]: ...


def split(body: bytes, length: str | None) -> tuple[memoryview, memoryview]:
    """Return the JSON of a request and what follows it.

    Args:
        body: Of the request.
        length: The header's value, None without it.

    Raises:
        InvalidMessage: The header does not say where in the body the JSON ends.
    """
    view = memoryview(body)
    if length is None:
        return view, view[len(body) :]
    digits = length.strip()
    # No size has more than twenty digits; making a number of many takes time that grows with their square.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20 and int(digits) <= len(body)):
        raise InvalidMessage(
            f"Inference-Header-Content-Length is {length!r:.40}; the request has {len(body)} bytes."
        )
    return view[: int(digits)], view[int(digits) :]


def assign(tensors: Sequence[_Sent], data: memoryview) -> dict[str, memoryview]:
    """Return the bytes of each tensor that came as bytes, by name.

    Args:
        tensors: In the order of the request.
        data: What followed the JSON.

    Raises:
        InvalidMessage: The bytes are more or fewer than the tensors have.
    """
    assigned: dict[str, memoryview] = {}
    position = 0
    for tensor in tensors:
        size = tensor.parameters.get(SIZE_PARAMETER)
        if size is None:
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InvalidMessage(f"{SIZE_PARAMETER} of input {tensor.name!r:.80} is no size.")
        if size > len(data) - position:
            raise InvalidMessage(
                f"Input {tensor.name!r:.80} has {size} bytes of data; {len(data) - position} are left."
            )
        assigned[tensor.name] = data[position : position + size]
        position += size
    if position != len(data):
        raise InvalidMessage(f"{len(data) - position} bytes follow the data of the last input.")
    return assigned


def decode_tensor(data: memoryview, wanted: Tensor, shape: Sequence[int]) -> NDArray[Any]:
    """Return the array in a tensor's bytes: these, or a copy if they are not aligned.

    Args:
        data: The bytes.
        wanted: Name and element type.
        shape: Of the array, without a -1.

    Raises:
        InvalidMessage: The bytes are not such an array.
    """
    if wanted.dtype == "str":
        return decode_text(bytes(data), shape)
    dtype = np.dtype(wanted.dtype)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidMessage(
            f"Input {wanted.name} of shape {list(shape)!r:.80} takes {expected} bytes; {len(data)} came."
        )
    if dtype.kind == "b":
        flags = np.frombuffer(data, dtype=np.uint8)
        if flags.max(initial=0) > 1:
            raise InvalidMessage(f"Input {wanted.name} has bytes that are no BOOL, 0 or 1.")
        return flags.astype(np.bool_).reshape(shape)
    array = np.ndarray(shape, dtype.newbyteorder("<"), data)
    if not (array.flags.aligned and array.dtype.isnative):
        array = array.astype(dtype)
    check_values(array, wanted)
    return array


def encode_tensor(array: NDArray[Any]) -> bytes:
    """Return an array of any shape as bytes."""
    if array.dtype.kind in "OU":
        return encode_text(array)
    if sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()
