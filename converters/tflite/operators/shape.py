"""Operators that only rename, regroup or repeat: their result holds the elements of their input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.tflite.layout import Emission, permuted
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, NUMBERS, require_dtype

B = schema.BuiltinOperator


def _regroup(emission: Emission, node: Node) -> None:
    """Emit any operator whose result is its input in row-major order, in another shape."""
    for attribute in ("axis", "axes", "allowzero"):
        node.attribute(attribute)  # the output's shape says it
    name = node.outputs[0]
    shape = emission.fact(name).shape
    emission.put(node, emission.reshape(node, emission.get(node, node.inputs[0]), shape, name))


def _pass(emission: Emission, node: Node) -> None:
    layout = emission.layout(node.inputs[0])
    emission.put(node, emission.get(node, node.inputs[0], layout), layout)


def _dropout(emission: Emission, node: Node) -> None:
    node.attribute("seed")
    training = emission.constant(node, 2)
    if training is not None and training.item():
        raise node.unsupported("it is in training mode")
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.unsupported("its second output, the mask, does not exist in TFLite")
    _pass(emission, node)


def _transpose(emission: Emission, node: Node) -> None:
    """Rename the axes of the form that exists; whoever needs another order asks for it."""
    layout = emission.layout(node.inputs[0])
    order = tuple(node.attribute("perm", tuple(reversed(range(len(layout))))))
    tensor = emission.get(node, node.inputs[0], layout)
    emission.put(node, tensor, tuple(order.index(axis) for axis in layout))


def _expand(emission: Emission, node: Node) -> None:
    """Repeat along axes of size 1, by multiplying with ones: BROADCAST_TO cannot leave the batch open."""
    require_dtype(emission, node, node.inputs[0], FLOAT)
    name = node.outputs[0]
    have, want = emission.fact(node.inputs[0]).shape, emission.fact(name).shape
    if have == want:
        return _pass(emission, node)
    have = (1,) * (len(want) - len(have)) + have
    if any(size < 0 and old != size for old, size in zip(have, want, strict=True)):
        raise node.unsupported("it repeats as often as the batch is large")
    if len(want) > 4:
        raise node.unsupported("it broadcasts more than 4 dimensions")
    ones = np.ones([max(size, 1) for size in want], dtype=np.float32)
    inputs = [emission.get(node, node.inputs[0]), emission.const(f"{name};ones", ones)]
    return emission.put(node, emission.emit(B.MUL, inputs, name, want, schema.MulOptionsT()))


def _tile(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], NUMBERS)
    repeats = emission.required(node, 1)
    name, layout = node.outputs[0], emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    multiples = emission.const(f"{name};repeats", repeats[list(layout)].astype(np.int32))
    shape = permuted(emission.fact(name).shape, layout)
    options = schema.TileOptionsT()
    result = emission.emit(B.TILE, [tensor, multiples], name, shape, options, dtype=tensor.dtype)
    emission.put(node, result, layout)


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {
    "Reshape": _regroup,
    "Flatten": _regroup,
    "Squeeze": _regroup,
    "Unsqueeze": _regroup,
    "Identity": _pass,
    "Dropout": _dropout,
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
}
