"""Operator versions: the lowest that describes an operator, so that the oldest runtime that can will load it.

A ``.tflite`` file states a version for each kind of operator, and a runtime refuses versions that it does not
know. The rules are those of TensorFlow's ``tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc`` for
the operators and types that this package writes; version 1 wherever nothing else is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

B = schema.BuiltinOperator
T = schema.TensorType

INT8_VERSION = {
    B.CONV_2D: 3,
    B.DEPTHWISE_CONV_2D: 3,
    B.FULLY_CONNECTED: 4,
    B.MUL: 3,  # 2 demands that the product of the input scales is below the output's, which data may break
    B.DEQUANTIZE: 2,
    B.TRANSPOSE_CONV: 2,
    B.RESHAPE: 1,
    B.QUANTIZE: 1,
    B.HARD_SWISH: 1,
    B.CAST: 1,
    B.SPACE_TO_DEPTH: 2,
    B.TILE: 1,
    B.PRELU: 1,
    B.ELU: 1,
}
"""Version for int8 operands where it is not `USUAL_INT8_VERSION`."""
USUAL_INT8_VERSION = 2


def operator_version(code: int, types: Sequence[int | None], ranks: Sequence[int], options: Any) -> int:
    """Return the lowest version that describes an operator.

    Args:
        code: Its ``BuiltinOperator``.
        types: ``TensorType`` of each input, then of each output; None for an absent one.
        ranks: Number of dimensions of each, in the same order.
        options: Its options table in the schema's object API, or None.
    """
    is_int8 = bool(types) and types[0] == T.INT8
    if code == B.FULLY_CONNECTED:
        return _fully_connected(is_int8=is_int8, types=types, options=options)
    if code == B.DEQUANTIZE and types[0] == T.FLOAT16:
        return 3
    least = INT8_VERSION.get(code, USUAL_INT8_VERSION) if is_int8 else 1
    return max(least, _by_options(code, types, ranks, options))


def _fully_connected(*, is_int8: bool, types: Sequence[int | None], options: Any) -> int:
    if len(types) < 4 or types[2] is None:
        return 6  # without a bias
    if options.keepNumDims:
        return 5
    return 4 if is_int8 else 1


def _by_options(code: int, types: Sequence[int | None], ranks: Sequence[int], options: Any) -> int:
    if code == B.DEPTHWISE_CONV_2D and (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        return 2
    if code == B.RESIZE_BILINEAR and options.halfPixelCenters:
        return 3
    if code == B.RESIZE_NEAREST_NEIGHBOR and (options.halfPixelCenters or options.alignCorners):
        return 3
    if code == B.TRANSPOSE and types[0] == T.BOOL:
        return 3
    if code == B.TRANSPOSE and ranks[0] > 4:
        return 4
    return 1
