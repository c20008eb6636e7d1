"""Check the parts of a TFLite file: operator codes, tensors, options.

What is checked is what the runtime follows when it loads a file, see `converters.tflite.inspect`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from converters.tflite.tables import Table
from fleet.protocol.errors import InvalidModel

CUSTOM = 32
MAX_RANK = 8

BITS = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64, 15: 32, 16: 16}
BITS |= {17: 4, 18: 16, 19: 2, 20: 4, 21: 8}
"""Bits of an element by ``TensorType``; other types (text, resources) have no fixed size."""

ZERO_POINTS = {3: (0, 2**8 - 1), 7: (-(2**15), 2**15 - 1), 9: (-(2**7), 2**7 - 1), 16: (0, 2**16 - 1)}
"""Least and greatest zero point by ``TensorType``; 0 for types that have none."""

DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    5: "str",
    6: "bool",
    7: "int16",
    8: "complex64",
    9: "int8",
    10: "float64",
    11: "complex128",
    12: "uint64",
    15: "uint32",
    16: "uint16",
}

_OPTION_VECTORS = {3: {1: "i4", 2: "i4"}, 8: {5: "u1"}, 17: {0: "i4"}, 30: {0: "i4"}, 115: {0: "f4"}}
"""By type of the options table: fields that are vectors, and of what."""
_OPTION_TEXTS = {111: (0, 1)}
_CHECKABLE_OPTIONS_2 = frozenset({0, 1, 8, 11, 14, 15, 18, 19, 20, 22})
"""Types of ``BuiltinOptions2`` tables that hold only numbers."""


@dataclass(frozen=True)
class Value:
    """A checked tensor.

    Attributes:
        name: Its own name.
        shape: Its dimensions, -1 for an open one.
        type: Its ``TensorType``.
        constant: Whether the file has its contents.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    constant: bool


def checked_code(code: Table) -> tuple[str, int, bool]:
    """Return an operator code's name and version, and whether it is a custom operator.

    Raises:
        InvalidModel: There is no such operator.
    """
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    names = {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}
    number = max(code.number(0, "b"), code.number(3, "i"))
    version = code.number(2, "i", 1)
    if number not in names or version < 1:
        raise InvalidModel(f"The TFLite file has an operator of unknown code {number}, version {version}.")
    custom = code.text(1)
    return (custom or names[number], version, True) if number == CUSTOM else (names[number], version, False)


def checked_tensor(tensor: Table, buffer_sizes: list[int]) -> Value:
    """Return a tensor whose contents, if there are any, fit its shape.

    Args:
        tensor: The table.
        buffer_sizes: Sizes of all buffers, in bytes.

    Raises:
        InvalidModel: Its shape, type, buffer or scales make no sense, or cannot be checked.
    """
    from ai_edge_litert.schema_py_generated import TensorType

    if tensor.has(6) or tensor.has(9) or tensor.number(10, "I"):
        raise InvalidModel(
            "The TFLite file has sparse, variant or external tensors, which are not supported."
        )
    shape = tuple(tensor.vector(0, "i4").tolist())
    signature = tuple(tensor.vector(7, "i4").tolist())
    name, kind, buffer = tensor.text(3), tensor.number(1, "b"), tensor.number(2, "I")
    if len(shape) > MAX_RANK or min(shape, default=0) < 0 or min(signature, default=0) < -1:
        raise InvalidModel(f"Tensor {name!r:.80} of the TFLite file has a shape that cannot be.")
    if signature and len(signature) != len(shape):
        raise InvalidModel(f"Tensor {name!r:.80} of the TFLite file has two different numbers of dimensions.")
    if buffer >= len(buffer_sizes):
        raise InvalidModel(
            f"Tensor {name!r:.80} of the TFLite file refers to buffer {buffer}, which is missing."
        )
    if kind not in vars(TensorType).values():
        raise InvalidModel(f"Tensor {name!r:.80} of the TFLite file has an unknown element type.")
    size_bytes = buffer_sizes[buffer]
    bits = BITS.get(kind)
    if size_bytes and bits and size_bytes != -(-math.prod(shape) * bits // 8):
        raise InvalidModel(
            f"Tensor {name!r:.80} of the TFLite file has {size_bytes} bytes for shape {shape}."
        )
    _check_quantization(tensor, name, kind, shape)
    return Value(name, signature or shape, kind, bool(size_bytes))


def _check_quantization(tensor: Table, name: str, kind: int, shape: tuple[int, ...]) -> None:
    quantization = tensor.table(4)
    if quantization is None:
        return
    for field in (0, 1):
        quantization.vector(field, "f4")
    scales, zeros = quantization.vector(2, "f4"), quantization.vector(3, "i8")
    axis = quantization.number(6, "i")
    if quantization.number(4, "B") or quantization.has(5):
        raise InvalidModel(
            f"Tensor {name!r:.80} of the TFLite file has a quantization that is not supported."
        )
    low, high = ZERO_POINTS.get(kind, (0, 0))
    if np.any((zeros < low) | (zeros > high)):  # kernels look values up in tables by it
        raise InvalidModel(f"Tensor {name!r:.80} of the TFLite file has a zero point that its type lacks.")
    if len(zeros) not in (0, 1, len(scales)) or not np.all((scales > 0) & (scales < np.inf)):
        raise InvalidModel(f"Tensor {name!r:.80} of the TFLite file has senseless scales.")
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise InvalidModel(
            f"Tensor {name!r:.80} of the TFLite file has {len(scales)} scales for shape {shape}."
        )


def check_options(operator: Table) -> None:
    """Check both options tables of an operator.

    Raises:
        InvalidModel: They do not lie within the file, or are of a kind that cannot be checked.
    """
    from ai_edge_litert.schema_py_generated import BuiltinOptions

    kind, options = operator.number(3, "B"), operator.table(4)
    if kind not in vars(BuiltinOptions).values():
        raise InvalidModel(f"The TFLite file has operator options of unknown kind {kind}.")
    if options is not None:
        options.check_numbers()
        for field, dtype in _OPTION_VECTORS.get(kind, {}).items():
            options.vector(field, dtype)
        for field in _OPTION_TEXTS.get(kind, ()):
            options.text(field)
    kind, options = operator.number(11, "B"), operator.table(12)
    if kind not in _CHECKABLE_OPTIONS_2:
        raise InvalidModel("The TFLite file has StableHLO operators, which are not supported.")
    if options is not None:
        options.check_numbers()


def check_indices(indices: list[int], count: int, *, optional: bool) -> None:
    """Check references to tensors.

    Args:
        indices: The references.
        count: Number of tensors.
        optional: Whether -1 may stand for none.

    Raises:
        InvalidModel: One refers to nothing.
    """
    least = -1 if optional else 0
    if any(not least <= index < count for index in indices):
        raise InvalidModel("The TFLite file is damaged: it refers to tensors that are missing.")
