"""Operators that work element by element, with broadcasting: arithmetic, comparison, logic, choice, cast.

Their operands are brought into one layout: that of the first operand that is not plain, so that a
channels-last tensor stays as it is and the constants beside it are transposed at conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission, Layout, permuted, plain
from converters.tflite.node import Node

B = schema.BuiltinOperator
MAX_BROADCAST_RANK = 4
FLOAT = frozenset({"float32"})
ARITHMETIC = FLOAT | {"int32"}
NUMBERS = ARITHMETIC | {"int64"}


def operands(
    emission: Emission, node: Node, names: Sequence[str] | None = None
) -> tuple[list[Tensor], Layout]:
    """Return a node's operands in one layout, that of its output, and that layout.

    Args:
        emission: The graph under way.
        node: Its first output has the operands' common shape.
        names: The operands; all inputs of the node if None.
    """
    names = list(node.inputs) if names is None else list(names)
    shape = emission.fact(node.outputs[0]).shape
    if len(shape) > MAX_BROADCAST_RANK and any(emission.fact(name).shape != shape for name in names):
        raise node.unsupported(f"it broadcasts {len(shape)} dimensions; {MAX_BROADCAST_RANK} are possible")
    layout = shared_layout(emission, names, len(shape))
    return [_operand(emission, node, name, layout) for name in names], layout


def shared_layout(emission: Emission, names: Sequence[str], rank: int) -> Layout:
    """Return the layout of the first operand of full rank that is not plain; plain if all are."""
    layouts = [emission.layout(name) for name in names if len(emission.fact(name).shape) == rank]
    return next((layout for layout in layouts if layout != plain(rank)), plain(rank))


def _operand(emission: Emission, node: Node, name: str, layout: Layout) -> Tensor:
    fact = emission.fact(name)
    missing = len(layout) - len(fact.shape)
    if not missing:
        return emission.get(node, name, layout)
    if layout == plain(len(layout)):
        return emission.get(node, name)  # TFLite aligns trailing dimensions as ONNX does
    full = (1,) * missing + fact.shape
    if fact.value is not None:
        return emission.const(name, np.transpose(fact.value.reshape(full), layout))
    tensor = emission.reshape(node, emission.get(node, name), full, f"{name};broadcast")
    return emission.transpose(node, tensor, layout, f"{name};aligned")


def _binary(
    code: int, options: Callable[[], Any] | None, allowed: frozenset[str], emission: Emission, node: Node
) -> None:
    """Emit an operator of two operands; more are taken one after another."""
    output = emission.fact(node.outputs[0])
    for name in node.inputs:
        require_dtype(emission, node, name, allowed)
    tensors, layout = operands(emission, node)
    result = tensors[0]
    for index, tensor in enumerate(tensors[1:], start=2):
        last = index == len(tensors)
        shape = permuted(output.shape, layout) if last else _broadcast(result, tensor)
        name = node.outputs[0] if last else f"{node.outputs[0]};{index - 1}"
        result = emission.emit(
            code, [result, tensor], name, shape, options() if options else None, dtype=output.dtype
        )
    emission.put(node, result, layout)


def _broadcast(a: Tensor, b: Tensor) -> tuple[int, ...]:
    rank = max(len(a.shape), len(b.shape))
    shapes = [(1,) * (rank - len(shape)) + shape for shape in (a.shape, b.shape)]
    return tuple(y if x == 1 else x for x, y in zip(*shapes, strict=True))


def require_dtype(emission: Emission, node: Node, name: str, allowed: frozenset[str]) -> None:
    """Refuse an operand of an element type that the TFLite kernel does not take.

    Raises:
        UnsupportedOperator: It has another.
    """
    dtype = emission.fact(name).dtype
    if dtype.name not in allowed:
        raise node.unsupported(f"its input {name!r:.80} is {dtype}, not one of {', '.join(sorted(allowed))}")


def unary(
    emission: Emission, node: Node, code: int, options: Any = None, *, dtypes: frozenset[str] | None = None
) -> None:
    """Emit an operator of one operand in the layout that the operand has."""
    require_dtype(emission, node, node.inputs[0], dtypes or FLOAT)
    layout = emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    result = emission.emit(code, [tensor], node.outputs[0], tensor.shape, options, dtype=tensor.dtype)
    emission.put(node, result, layout)


def _unary(
    code: int, options: Callable[[], Any] | None, dtypes: frozenset[str], emission: Emission, node: Node
) -> None:
    unary(emission, node, code, options() if options else None, dtypes=dtypes)


def _power(emission: Emission, node: Node) -> None:
    for name in node.inputs:
        require_dtype(emission, node, name, FLOAT)
    exponent = emission.fact(node.inputs[1]).value
    rank = len(emission.fact(node.inputs[0]).shape)
    if exponent is not None and exponent.size == 1 and exponent.item() == 2 and exponent.ndim <= rank:
        return unary(emission, node, B.SQUARE, schema.SquareOptionsT())
    return _binary(B.POW, schema.PowOptionsT, FLOAT, emission, node)


def _reciprocal(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    layout = emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    one = emission.const(f"{node.outputs[0]};one", np.ones((), dtype=np.float32))
    result = emission.emit(B.DIV, [one, tensor], node.outputs[0], tensor.shape, schema.DivOptionsT())
    emission.put(node, result, layout)


def _is_nan(emission: Emission, node: Node) -> None:
    """Only what is not a number differs from itself."""
    require_dtype(emission, node, node.inputs[0], FLOAT)
    layout = emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    options = schema.NotEqualOptionsT()
    name = node.outputs[0]
    result = emission.emit(B.NOT_EQUAL, [tensor, tensor], name, tensor.shape, options, dtype=np.bool_)
    emission.put(node, result, layout)


def _where(emission: Emission, node: Node) -> None:
    for name in node.inputs[1:]:
        require_dtype(emission, node, name, NUMBERS | {"bool"})
    output = emission.fact(node.outputs[0])
    tensors, layout = operands(emission, node)
    shape = permuted(output.shape, layout)
    result = emission.emit(
        B.SELECT_V2, tensors, node.outputs[0], shape, schema.SelectV2OptionsT(), dtype=output.dtype
    )
    emission.put(node, result, layout)


def _cast(emission: Emission, node: Node) -> None:
    node.attribute("to")
    if node.attribute("saturate", 1) != 1:
        raise node.unsupported("saturate is 0")
    source, target = emission.fact(node.inputs[0]), emission.fact(node.outputs[0])
    layout = emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    if source.dtype != target.dtype:
        options = schema.CastOptionsT()
        tensor = emission.emit(B.CAST, [tensor], node.outputs[0], tensor.shape, options, dtype=target.dtype)
    emission.put(node, tensor, layout)


_BOOL = frozenset({"bool"})
_EQUATABLE = NUMBERS | _BOOL

OPERATORS: dict[str, Callable[[Emission, Node], None]] = {
    "Add": partial(_binary, B.ADD, schema.AddOptionsT, ARITHMETIC),
    "Sum": partial(_binary, B.ADD, schema.AddOptionsT, ARITHMETIC),
    "Sub": partial(_binary, B.SUB, schema.SubOptionsT, ARITHMETIC),
    "Mul": partial(_binary, B.MUL, schema.MulOptionsT, ARITHMETIC),
    "Div": partial(_binary, B.DIV, schema.DivOptionsT, FLOAT),
    "Max": partial(_binary, B.MAXIMUM, schema.MaximumMinimumOptionsT, ARITHMETIC),
    "Min": partial(_binary, B.MINIMUM, schema.MaximumMinimumOptionsT, ARITHMETIC),
    "Equal": partial(_binary, B.EQUAL, schema.EqualOptionsT, _EQUATABLE),
    "Less": partial(_binary, B.LESS, schema.LessOptionsT, NUMBERS),
    "LessOrEqual": partial(_binary, B.LESS_EQUAL, schema.LessEqualOptionsT, NUMBERS),
    "Greater": partial(_binary, B.GREATER, schema.GreaterOptionsT, NUMBERS),
    "GreaterOrEqual": partial(_binary, B.GREATER_EQUAL, schema.GreaterEqualOptionsT, NUMBERS),
    "And": partial(_binary, B.LOGICAL_AND, schema.LogicalAndOptionsT, _BOOL),
    "Or": partial(_binary, B.LOGICAL_OR, schema.LogicalOrOptionsT, _BOOL),
    "Xor": partial(_binary, B.NOT_EQUAL, schema.NotEqualOptionsT, _BOOL),
    "Not": partial(_unary, B.LOGICAL_NOT, schema.LogicalNotOptionsT, _BOOL),
    "Abs": partial(_unary, B.ABS, schema.AbsOptionsT, FLOAT),
    "Neg": partial(_unary, B.NEG, schema.NegOptionsT, ARITHMETIC),
    "Exp": partial(_unary, B.EXP, schema.ExpOptionsT, FLOAT),
    "Log": partial(_unary, B.LOG, None, FLOAT),
    "Sqrt": partial(_unary, B.SQRT, None, FLOAT),
    "Sin": partial(_unary, B.SIN, None, FLOAT),
    "Cos": partial(_unary, B.COS, schema.CosOptionsT, FLOAT),
    "Floor": partial(_unary, B.FLOOR, None, FLOAT),
    "Ceil": partial(_unary, B.CEIL, None, FLOAT),
    "Round": partial(_unary, B.ROUND, None, FLOAT),
    "Pow": _power,
    "Reciprocal": _reciprocal,
    "IsNaN": _is_nan,
    "Where": _where,
    "Cast": _cast,
}
