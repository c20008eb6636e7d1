"""Conv: CONV_2D with weights (outputs, H, W, inputs), or DEPTHWISE_CONV_2D with (1, H, W, outputs).

Other groups are convolved one by one and concatenated: TFLite's own grouped CONV_2D needs operator version 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Shape, Tensor
from converters.tflite.layout import Emission
from converters.tflite.operators.elementwise import require_dtype
from converters.tflite.operators.window import VALID, Window, image, put_image, read_window, zero_padded
from converters.tflite.source import Node

B = schema.BuiltinOperator
FLOAT = frozenset({"float32"})


def _conv(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    weights = emission.constant(node, 1)
    assert weights is not None
    bias = emission.constant(node, 2)
    bias = np.zeros(len(weights), dtype=np.float32) if bias is None else bias
    groups = node.attribute("group", 1)
    window = read_window(emission, node, weights.shape[2:])
    weights = weights.reshape(*weights.shape[:2], *window.kernel)
    tensor, name = image(emission, node), node.outputs[0]
    scheme = schema.Padding.SAME if window.is_same else VALID
    if scheme == VALID:
        tensor = zero_padded(emission, tensor, window.reached, name)
    put_image(emission, node, _grouped(emission, node, tensor, weights, bias, groups, window, scheme))


def _grouped(
    emission: Emission,
    node: Node,
    tensor: Tensor,
    weights: NDArray[Any],
    bias: NDArray[Any],
    groups: int,
    window: Window,
    scheme: int,
) -> Tensor:
    name = node.outputs[0]
    shape = (tensor.shape[0], *window.positions, len(weights))
    if groups == 1:
        return convolved(emission, node, tensor, weights, bias, window, scheme, name)
    if groups == tensor.shape[-1]:
        kernel = emission.const(node.inputs[1], weights.transpose(1, 2, 3, 0))
        constants = [kernel, emission.const(f"{name};bias", bias)]
        options = _depthwise_options(window, scheme, len(weights) // groups)
        return emission.emit(B.DEPTHWISE_CONV_2D, [tensor, *constants], name, shape, options)
    parts = []
    size = tensor.shape[-1] // groups
    for group, (kernels, biases) in enumerate(
        zip(np.split(weights, groups), np.split(bias, groups), strict=True)
    ):
        begin, extent = (0, 0, 0, group * size), (*tensor.shape[:3], size)
        part = sliced(emission, tensor, begin, extent, f"{name};in{group}")
        parts.append(convolved(emission, node, part, kernels, biases, window, scheme, f"{name};out{group}"))
    options = schema.ConcatenationOptionsT()
    options.axis = 3
    return emission.emit(B.CONCATENATION, parts, name, shape, options)


def convolved(
    emission: Emission,
    node: Node,
    tensor: Tensor,
    weights: NDArray[Any],
    bias: NDArray[Any],
    window: Window,
    scheme: int,
    name: str,
) -> Tensor:
    """Return an image convolved with all its channels.

    Args:
        emission: The graph under way.
        node: On whose behalf; its second input names the weights.
        tensor: (N, H, W, inputs).
        weights: (outputs, inputs, kernel height, kernel width), as in ONNX.
        bias: (outputs,).
        window: How the kernel moves.
        scheme: TFLite's padding.
        name: Name of the result.
    """
    options = schema.Conv2DOptionsT()
    options.padding = scheme
    options.strideH, options.strideW = window.strides
    options.dilationHFactor, options.dilationWFactor = window.dilations
    kernel = emission.const(node.inputs[1], weights.transpose(0, 2, 3, 1))
    shape = (tensor.shape[0], *window.positions, len(weights))
    return emission.emit(
        B.CONV_2D, [tensor, kernel, emission.const(f"{name};bias", bias)], name, shape, options
    )


def _depthwise_options(window: Window, scheme: int, multiplier: int) -> Any:
    options = schema.DepthwiseConv2DOptionsT()
    options.padding = scheme
    options.strideH, options.strideW = window.strides
    options.dilationHFactor, options.dilationWFactor = window.dilations
    options.depthMultiplier = multiplier
    return options


def sliced(emission: Emission, tensor: Tensor, begin: Shape, extent: Shape, name: str) -> Tensor:
    """Return a part of a tensor.

    Args:
        emission: The graph under way.
        tensor: What to take it from.
        begin: First index along each axis.
        extent: Shape of the part; an axis that grows with the batch is taken whole.
        name: Name of the part.
    """
    if extent == tensor.shape:
        return tensor
    sizes = [size if size > 0 else -1 for size in extent]
    constants = [
        emission.const(f"{name};begin", np.array(begin, dtype=np.int32)),
        emission.const(f"{name};size", np.array(sizes, dtype=np.int32)),
    ]
    options = schema.SliceOptionsT()
    return emission.emit(B.SLICE, [tensor, *constants], name, extent, options, dtype=tensor.dtype)


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {"Conv": _conv}
