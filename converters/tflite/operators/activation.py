"""Activation functions. Those that TFLite can fuse are fused afterwards, in `converters.tflite.fuse`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission, Layout, plain
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, require_dtype, unary

B = schema.BuiltinOperator
MAX_SOFTMAX_RANK = 4


def _simple(code: int, options: Callable[[], Any] | None = None) -> Callable[[Emission, Node], None]:
    return lambda emission, node: unary(emission, node, code, options() if options else None)


def _bounded(emission: Emission, node: Node, low: float, high: float) -> None:
    """Emit min(max(x, low), high), as one operator where TFLite has one."""
    named = {(0.0, np.inf): B.RELU, (0.0, 6.0): B.RELU6, (-1.0, 1.0): B.RELU_N1_TO_1}
    if (code := named.get((low, high))) is not None:
        return unary(emission, node, code)
    require_dtype(emission, node, node.inputs[0], FLOAT)
    layout = emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    name = node.outputs[0]
    if low > -np.inf:
        step = f"{name};low" if high < np.inf else name
        tensor = _with_scalar(emission, B.MAXIMUM, tensor, low, step)
    if high < np.inf:
        tensor = _with_scalar(emission, B.MINIMUM, tensor, high, name)
    return emission.put(node, tensor, layout)


def _with_scalar(emission: Emission, code: int, tensor: Tensor, value: float, name: str) -> Tensor:
    options = {
        B.MAXIMUM: schema.MaximumMinimumOptionsT,
        B.MINIMUM: schema.MaximumMinimumOptionsT,
        B.MUL: schema.MulOptionsT,
        B.ADD: schema.AddOptionsT,
    }[code]()
    scalar = emission.const(f"{name};scalar", np.array(value, dtype=np.float32))
    return emission.emit(code, [tensor, scalar], name, tensor.shape, options)


def _clip(emission: Emission, node: Node) -> None:
    low, high = emission.constant(node, 1), emission.constant(node, 2)
    _bounded(
        emission,
        node,
        -np.inf if low is None else low.item(),
        np.inf if high is None else high.item(),
    )


def _leaky_relu(emission: Emission, node: Node) -> None:
    options = schema.LeakyReluOptionsT()
    options.alpha = node.attribute("alpha", 0.01)
    unary(emission, node, B.LEAKY_RELU, options)


def _elu(emission: Emission, node: Node) -> None:
    if node.attribute("alpha", 1.0) != 1.0:
        raise node.unsupported("alpha is not 1")
    unary(emission, node, B.ELU)


def _gelu(emission: Emission, node: Node) -> None:
    options = schema.GeluOptionsT()
    options.approximate = node.attribute("approximate", "none") == "tanh"
    unary(emission, node, B.GELU, options)


def _prelu(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    slope = emission.required(node, 1)
    shape = emission.fact(node.inputs[0]).shape
    layout = emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    full = slope.reshape((1,) * (len(shape) - slope.ndim) + slope.shape)
    if full.shape[0] != 1:
        raise node.unsupported("its slope differs along the batch")
    alpha = emission.const(node.inputs[1], np.transpose(full, layout)[0])  # TFLite's slopes have no batch
    emission.put(node, emission.emit(B.PRELU, [tensor, alpha], node.outputs[0], tensor.shape), layout)


def _hard_sigmoid(emission: Emission, node: Node) -> None:
    """max(0, min(1, alpha·x + beta))."""
    require_dtype(emission, node, node.inputs[0], FLOAT)
    name = node.outputs[0]
    layout = emission.layout(node.inputs[0])
    tensor = emission.get(node, node.inputs[0], layout)
    tensor = _with_scalar(emission, B.MUL, tensor, node.attribute("alpha", 0.2), f"{name};scaled")
    tensor = _with_scalar(emission, B.ADD, tensor, node.attribute("beta", 0.5), f"{name};shifted")
    tensor = emission.emit(B.RELU, [tensor], f"{name};low", tensor.shape)
    emission.put(node, _with_scalar(emission, B.MINIMUM, tensor, 1.0, name), layout)


def _softmax(emission: Emission, node: Node) -> None:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    _along_axis(emission, node, B.SOFTMAX, options)


def _log_softmax(emission: Emission, node: Node) -> None:
    _along_axis(emission, node, B.LOG_SOFTMAX, schema.LogSoftmaxOptionsT())


def _along_axis(emission: Emission, node: Node, code: int, options: Any) -> None:
    """Emit an operator that works along the last axis of a form: the ONNX axis is moved there."""
    require_dtype(emission, node, node.inputs[0], FLOAT)
    shape = emission.fact(node.inputs[0]).shape
    if len(shape) > MAX_SOFTMAX_RANK:
        raise node.unsupported(f"it has {len(shape)} dimensions; {MAX_SOFTMAX_RANK} are possible")
    axis = node.attribute("axis", -1) % len(shape)
    if shape[axis] < 0:
        raise node.unsupported("it goes along the batch")
    layout = _axis_last(emission.layout(node.inputs[0]), axis, len(shape))
    tensor = emission.get(node, node.inputs[0], layout)
    emission.put(node, emission.emit(code, [tensor], node.outputs[0], tensor.shape, options), layout)


def _axis_last(layout: Layout, axis: int, rank: int) -> Layout:
    if layout[-1] == axis:
        return layout
    return (*(other for other in plain(rank) if other != axis), axis)


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {
    "Relu": _simple(B.RELU),
    "Sigmoid": _simple(B.LOGISTIC),
    "Tanh": _simple(B.TANH),
    "HardSwish": _simple(B.HARD_SWISH, schema.HardSwishOptionsT),
    "HardSigmoid": _hard_sigmoid,
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": _elu,
    "Gelu": _gelu,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
