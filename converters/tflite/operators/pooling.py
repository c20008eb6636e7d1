"""Pools. What ONNX pads and TFLite cannot is made up for exactly, without values that ruin quantization.

Maximum: a pad of minus infinity would stretch the range of an int8 tensor to nothing. As long as a window
reaches no further out than it reaches in (2 · pad ≤ kernel), the mirror image of the border contains only
values that the window holds anyway, so MIRROR_PAD leaves every maximum as it is.

Average: TFLite divides by the number of elements inside the input, ONNX by that or by the whole window.
Padded with zeros, the whole window counts; a constant factor for each position corrects the count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, require_dtype
from converters.tflite.operators.window import (
    VALID,
    Window,
    image,
    padded_shape,
    padding,
    put_image,
    read_window,
    zero_padded,
)

B = schema.BuiltinOperator


def _max_pool(emission: Emission, node: Node) -> None:
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.unsupported("its second output, the indices, does not exist in TFLite")
    node.attribute("storage_order")
    window = _window(emission, node)
    tensor = image(emission, node)
    if not window.is_same:
        tensor = _padded_for_maximum(emission, tensor, window, node.outputs[0])
    name = node.outputs[0]
    pooled = _pooled(emission, B.MAX_POOL_2D, tensor, window, scheme=window.scheme, name=name)
    put_image(emission, node, pooled)


def _padded_for_maximum(emission: Emission, tensor: Tensor, window: Window, name: str) -> Tensor:
    pads = window.reached
    if not window.padded:
        return tensor
    constant, shape = padding(emission, pads, name), padded_shape(tensor, pads)
    axes = zip(pads, window.kernel, window.sizes, strict=True)
    if all(2 * max(pair) <= kernel and max(pair) <= size for pair, kernel, size in axes):
        options = schema.MirrorPadOptionsT()
        options.mode = schema.MirrorPadMode.SYMMETRIC
        return emission.emit(B.MIRROR_PAD, [tensor, constant], f"{name};padded", shape, options)
    lowest = emission.const(f"{name};lowest", np.array([np.finfo(np.float32).min], dtype=np.float32))
    inputs = [tensor, constant, lowest]
    return emission.emit(B.PADV2, inputs, f"{name};padded", shape, schema.PadV2OptionsT())


def _average_pool(emission: Emission, node: Node) -> None:
    window, name = _window(emission, node), node.outputs[0]
    include_pads = bool(node.attribute("count_include_pad", 0))
    tensor, code = image(emission, node), B.AVERAGE_POOL_2D
    if not window.padded or (window.is_same and not include_pads):
        pooled = _pooled(emission, code, tensor, window, scheme=window.scheme, name=name)
        return put_image(emission, node, pooled)
    factors = _factors(window, include_pads=include_pads)
    tensor = zero_padded(emission, tensor, window.reached, name)
    exact = bool(np.all(factors == 1))
    step = name if exact else f"{name};mean"
    tensor = _pooled(emission, code, tensor, window, scheme=VALID, name=step)
    if not exact:
        constant = emission.const(f"{name};factors", factors)
        tensor = emission.emit(B.MUL, [tensor, constant], name, tensor.shape, schema.MulOptionsT())
    return put_image(emission, node, tensor)


def _factors(window: Window, *, include_pads: bool) -> NDArray[np.float32]:
    """Return window elements / counted elements for each position, shape (1, H, W, 1)."""
    counts = []
    for axis in range(2):
        before, after = window.pads[axis] if include_pads else (0, 0)
        begin = np.arange(window.positions[axis]) * window.strides[axis] - window.pads[axis][0]
        end = np.minimum(begin + window.kernel[axis], window.sizes[axis] + after)
        counts.append(end - np.maximum(begin, -before))
    whole = window.kernel[0] * window.kernel[1]
    factors: NDArray[np.float32] = (whole / np.multiply.outer(*counts)).astype(np.float32)
    return factors[None, :, :, None]


def _window(emission: Emission, node: Node) -> Window:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    node.attribute("ceil_mode")  # the output's shape says it
    window = read_window(emission, node)
    if window.dilations != (1, 1):
        raise node.unsupported("pools have no dilations in TFLite")
    for axis in range(2):
        if (window.positions[axis] - 1) * window.strides[axis] - window.pads[axis][0] >= window.sizes[axis]:
            raise node.unsupported("its last window lies outside of its input, and runtimes differ on that")
    return window


def _pooled(
    emission: Emission, code: int, tensor: Tensor, window: Window, *, scheme: int, name: str
) -> Tensor:
    options: Any = schema.Pool2DOptionsT()
    options.padding = scheme
    options.strideH, options.strideW = window.strides
    options.filterHeight, options.filterWidth = window.kernel
    return emission.emit(
        code, [tensor], name, (tensor.shape[0], *window.positions, tensor.shape[-1]), options
    )


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
}
