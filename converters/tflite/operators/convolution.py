"""Conv: CONV_2D with weights (outputs, H, W, inputs), or DEPTHWISE_CONV_2D with (1, H, W, outputs).

Other groups are convolved one by one and concatenated: TFLite's own grouped CONV_2D needs operator version 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, require_dtype
from converters.tflite.operators.selection import sliced
from converters.tflite.operators.window import VALID, Window, image, put_image, read_window, zero_padded

B = schema.BuiltinOperator


@dataclass(frozen=True, eq=False)
class Kernels:
    """The constants of a convolution.

    Attributes:
        weights: (outputs, inputs of a group, kernel height, kernel width), as in ONNX.
        bias: (outputs,).
    """

    weights: NDArray[Any]
    bias: NDArray[Any]

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return len(self.weights)


def read_bias(emission: Emission, node: Node, outputs: int) -> NDArray[Any]:
    """Return a convolution's third input; zeros where it is left out."""
    bias = emission.constant(node, 2)
    return np.zeros(outputs, dtype=np.float32) if bias is None else bias


def _conv(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    weights = emission.required(node, 1)
    window = read_window(emission, node, weights.shape[2:])
    weights = weights.reshape(*weights.shape[:2], *window.kernel)
    kernels = Kernels(weights, read_bias(emission, node, len(weights)))
    tensor, name, groups = image(emission, node), node.outputs[0], node.attribute("group", 1)
    if window.scheme == VALID:
        tensor = zero_padded(emission, tensor, window.reached, name)
    if groups == 1:
        result = convolved(emission, node, tensor, kernels, window, name=name)
    elif groups == tensor.shape[-1]:
        result = _depthwise(emission, node, tensor, kernels, window)
    else:
        result = _by_groups(emission, node, tensor, kernels, window)
    put_image(emission, node, result)


def convolved(
    emission: Emission, node: Node, tensor: Tensor, kernels: Kernels, window: Window, *, name: str
) -> Tensor:
    """Return an image convolved with all its channels.

    Args:
        emission: The graph under way.
        node: On whose behalf; its second input names the weights.
        tensor: (N, H, W, inputs), padded already unless TFLite pads as the window says.
        kernels: Of one group.
        window: How they move.
        name: Name of the result.
    """
    return emission.emit(
        B.CONV_2D,
        [
            tensor,
            emission.const(node.inputs[1], kernels.weights.transpose(0, 2, 3, 1)),
            emission.const(f"{name};bias", kernels.bias),
        ],
        name,
        (tensor.shape[0], *window.positions, kernels.outputs),
        _moving(schema.Conv2DOptionsT(), window),
    )


def _depthwise(emission: Emission, node: Node, tensor: Tensor, kernels: Kernels, window: Window) -> Tensor:
    name = node.outputs[0]
    options = _moving(schema.DepthwiseConv2DOptionsT(), window)
    options.depthMultiplier = kernels.outputs // tensor.shape[-1]
    constants = [
        emission.const(node.inputs[1], kernels.weights.transpose(1, 2, 3, 0)),
        emission.const(f"{name};bias", kernels.bias),
    ]
    shape = (tensor.shape[0], *window.positions, kernels.outputs)
    return emission.emit(B.DEPTHWISE_CONV_2D, [tensor, *constants], name, shape, options)


def _by_groups(emission: Emission, node: Node, tensor: Tensor, kernels: Kernels, window: Window) -> Tensor:
    name, size = node.outputs[0], kernels.weights.shape[1]
    groups = tensor.shape[-1] // size
    extent = (*tensor.shape[:3], size)
    parts = []
    for group, (weights, bias) in enumerate(
        zip(np.split(kernels.weights, groups), np.split(kernels.bias, groups), strict=True)
    ):
        part = sliced(emission, tensor, (0, 0, 0, group * size), extent, name=f"{name};in{group}")
        own = Kernels(weights, bias)
        parts.append(convolved(emission, node, part, own, window, name=f"{name};out{group}"))
    options = schema.ConcatenationOptionsT()
    options.axis = 3
    shape = (tensor.shape[0], *window.positions, kernels.outputs)
    return emission.emit(B.CONCATENATION, parts, name, shape, options)


def _moving(options: Any, window: Window) -> Any:
    """Return the options with the window's padding, strides and dilations."""
    options.padding = window.scheme
    options.strideH, options.strideW = window.strides
    options.dilationHFactor, options.dilationWFactor = window.dilations
    return options


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {"Conv": _conv}
