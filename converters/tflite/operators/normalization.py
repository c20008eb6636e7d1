"""BatchNormalization: a product and a sum, which `converters.tflite.fuse` folds into weights where it can."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.tflite.layout import Emission
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, require_dtype

B = schema.BuiltinOperator


def _batch_normalization(emission: Emission, node: Node) -> None:
    """Compute scale · (x - mean) / √(variance + epsilon) + bias, parameters by channel, axis 1."""
    require_dtype(emission, node, node.inputs[0], FLOAT)
    node.attribute("momentum")  # concerns training only
    if node.attribute("training_mode", 0):
        raise node.unsupported("it is in training mode")
    parameters = [emission.required(node, index) for index in range(1, 5)]
    scale, bias, mean, variance = (np.asarray(value, dtype=np.float64) for value in parameters)
    factor = scale / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    name = node.outputs[0]
    layout = emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    shape = [1] * len(layout)
    shape[layout.index(1)] = -1
    for code, options, value, step in (
        (B.MUL, schema.MulOptionsT(), factor, f"{name};scaled"),
        (B.ADD, schema.AddOptionsT(), bias - mean * factor, name),
    ):
        constant = emission.const(f"{step};constant", value.astype(np.float32).reshape(shape))
        tensor = emission.emit(code, [tensor, constant], step, tensor.shape, options)
    emission.put(node, tensor, layout)


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {"BatchNormalization": _batch_normalization}
