"""Tensors in the Open Inference Protocol's form, and back: all checks on what a client sends.

``{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0, …]}``, data flat or nested, row by
row. What an element may be:

=================  ==========================  ==============================================================
datatype           JSON                        and
=================  ==========================  ==============================================================
``BOOL``           ``true``, ``false``
``INT8``…          numbers without a fraction  within the type's range
``FP16``…          numbers                     finite in that type; ``null`` for a value that is missing (NaN,
                                               which JSON lacks), where the model fills in missing values
``BYTES``          strings                     text; the manifest's element type is ``str``
=================  ==========================  ==============================================================

Tensors that travel as bytes behind the JSON are `agent.serving.binary`'s; the same rules hold for them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.finite import is_finite
from agent.serving.binary import SIZE_PARAMETER, Parameter, decode_tensor
from agent.serving.checks import check_batches, check_names, check_shape
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.manifest import Signature, Tensor

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "str": "BYTES",
}
"""The protocol's names of the manifest's element types, which are NumPy's but for text."""

_ELEMENTS: dict[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({int, float}),
    "U": frozenset({str}),
}
"""What an element may be in JSON, by NumPy's kind of element type."""


class RequestTensor(msgspec.Struct):
    """One input as it is sent; without data here if it is among the bytes that follow the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Parameter] = msgspec.field(default_factory=dict)


class FlatTensor(RequestTensor):
    """One input whose data are numbers in one row, which most are: read so, their kinds need no look."""

    data: list[float] | None = None


class ResponseTensor(msgspec.Struct, omit_defaults=True):
    """One output as it is answered; without data here if it is among the bytes that follow the JSON."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Parameter] = msgspec.field(default_factory=dict)


def read_inputs(
    tensors: Sequence[RequestTensor], signature: Signature, binary: Mapping[str, memoryview]
) -> dict[str, NDArray[Any]]:
    """Return the inputs as arrays that a model of this signature takes; text as arrays of ``str`` objects.

    Args:
        tensors: As received.
        signature: What the model takes.
        binary: By name the bytes of those inputs that came as bytes.

    Raises:
        InvalidMessage: They are not what the model takes.
    """
    sent = {tensor.name: tensor for tensor in tensors}
    wanted = {tensor.name: tensor for tensor in signature.inputs}
    check_names([tensor.name for tensor in tensors], signature.inputs, "takes the inputs")
    arrays = {name: _read(sent[name], wanted[name], binary.get(name)) for name in wanted}
    check_batches([len(array) for array in arrays.values()])
    return arrays


def write_output(
    name: str, value: NDArray[Any], *, elsewhere: dict[str, Parameter] | None = None
) -> ResponseTensor:
    """Return an array in the form that is answered.

    Args:
        name: Of the output.
        value: The array.
        elsewhere: Parameters that say where its data are; None if the JSON holds them.
    """
    datatype = DATATYPES.get(value.dtype.name, DATATYPES["str"])
    if elsewhere is None:
        return ResponseTensor(name, value.shape, datatype, value.ravel().tolist())
    return ResponseTensor(name, value.shape, datatype, parameters=elsewhere)


def _read(sent: RequestTensor, wanted: Tensor, binary: memoryview | None) -> NDArray[Any]:
    expected = DATATYPES.get(wanted.dtype)
    if sent.datatype != expected:
        raise InvalidMessage(f"Input {wanted.name} has the datatype {expected}, not {sent.datatype!r:.40}.")
    check_shape(sent.shape, wanted)
    if (binary is None) == (sent.data is None):
        raise InvalidMessage(
            f"Input {wanted.name} has {'no data' if binary is None else 'data twice'}.",
            remedy=f"Send either data, or {SIZE_PARAMETER} and the bytes behind the JSON.",
        )
    if binary is not None:
        return decode_tensor(binary, wanted, sent.shape)
    is_flat = isinstance(sent, FlatTensor)
    elements = (sent.data or []) if is_flat else _flat(sent.data or [])
    if len(elements) != math.prod(sent.shape):
        raise InvalidMessage(f"The data of input {wanted.name} does not have the stated shape.")
    if is_flat:
        return _packed(elements, wanted).reshape(sent.shape)
    _check_kinds(elements, wanted)
    return _typed(elements, wanted).reshape(sent.shape)


def _flat(data: list[Any]) -> list[Any]:
    """Return the elements of data row by row; what is not nested evenly leaves lists among them."""
    if list not in set(map(type, data)):
        return data
    try:
        return np.array(data, dtype=object).ravel().tolist()
    except ValueError as error:
        raise InvalidMessage("The data is not nested evenly.") from error


def _check_kinds(elements: list[Any], wanted: Tensor) -> None:
    """Refuse elements that are not of a kind for the type that the model takes."""
    dtype = np.dtype(wanted.dtype)
    found = set(map(type, elements))
    if wanted.missing and dtype.kind == "f":
        found.discard(type(None))  # NumPy makes NaN of it
    if not found <= _ELEMENTS[dtype.kind]:
        raise InvalidMessage(
            f"The data of input {wanted.name} has elements that are no {DATATYPES[wanted.dtype]}."
        )


def _packed(numbers: list[float], wanted: Tensor) -> NDArray[Any]:
    """Return floating-point numbers in the type that the model takes, in one row: half the time of NumPy."""
    dtype = np.dtype(wanted.dtype)
    try:
        array = np.frombuffer(struct.pack(f"{len(numbers)}{dtype.char}", *numbers), dtype)
    except OverflowError as error:
        raise InvalidMessage(f"Input {wanted.name} has values that are not finite in its type.") from error
    if not is_finite(array):
        raise InvalidMessage(f"Input {wanted.name} has values that are not finite in its type.")
    return array


def _typed(elements: list[Any], wanted: Tensor) -> NDArray[Any]:
    """Return elements as they came from JSON in the type that the model takes, in one row."""
    dtype = np.dtype(wanted.dtype)
    if dtype.kind == "U":
        return np.array(elements, dtype=object)
    try:
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused below
            array = np.array(elements, dtype=dtype)
    except OverflowError as error:
        raise InvalidMessage(f"Input {wanted.name} has values out of its type's range.") from error
    if dtype.kind in "iu" and array.tolist() != elements:  # older versions of NumPy let them wrap around
        raise InvalidMessage(f"Input {wanted.name} has values out of its type's range.")
    if dtype.kind == "f" and np.isinf(array).any():
        raise InvalidMessage(f"Input {wanted.name} has values that are not finite in its type.")
    return array
