"""ConvTranspose and DepthToSpace: the operators that spread channels over space.

TFLite's TRANSPOSE_CONV wants its output shape as data, batch included, so that a batch which is open until
run time needs three more operators, and no accelerator takes the graph. A sub-pixel convolution needs none.
With stride s, position q = i·s + k of the full result gets x[i]·w[k]. Write q = m·s + r and k = t·s + r:

    y[m·s + r] = Σₜ x[m - t] · w[t·s + r],   t = 0 … ceil(kernel / s) - 1,   r = 0 … s - 1

For each phase r that is an ordinary convolution; the s·s phases are computed as channels of one CONV_2D and
interleaved afterwards, and the ONNX pads are cropped. No multiplication is wasted where s divides the kernel.
(Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission, channels_last
from converters.tflite.node import Node
from converters.tflite.operators.convolution import Kernels, convolved, read_bias
from converters.tflite.operators.elementwise import FLOAT, require_dtype
from converters.tflite.operators.selection import gathered, sliced
from converters.tflite.operators.window import VALID, Window, image, put_image, zero_padded

B = schema.BuiltinOperator


def _conv_transpose(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    weights = emission.required(node, 1)
    rank = weights.ndim - 2
    if rank not in (1, 2):
        raise node.unsupported(f"it has {rank} spatial axes; 1 and 2 are possible")
    weights = _dilated(_dense(weights, node.attribute("group", 1)), node.attribute("dilations", (1,) * rank))
    strides = tuple(node.attribute("strides", (1,) * rank))
    begins = _pads_before(emission, node, weights.shape[2:], strides)
    outputs = emission.fact(node.outputs[0]).shape[2:]
    if rank == 1:
        weights, strides = weights[:, :, None], (1, *strides)
        begins, outputs = (0, *begins), (1, *outputs)
    phases, positions = _phased(emission, node, weights, strides, begins=begins, outputs=outputs)
    name = node.outputs[0]
    phases.name = name if strides == (1, 1) else phases.name
    whole = interleaved(emission, node, phases, strides, name=name)
    extent = (whole.shape[0], *outputs, weights.shape[1])
    if extent != whole.shape:
        whole.name = f"{name};uncropped"
    begin = [b - m * s for b, m, s in zip(begins, positions, strides, strict=True)]
    put_image(emission, node, sliced(emission, whole, (0, *begin, 0), extent, name=name))


def _phased(
    emission: Emission,
    node: Node,
    weights: NDArray[Any],
    strides: tuple[int, ...],
    *,
    begins: tuple[int, ...],
    outputs: tuple[int, ...],
) -> tuple[Tensor, list[int]]:
    """Return the phases of all positions as channels, and the m of the first position along each axis."""
    tensor, name = image(emission, node), node.outputs[0]
    height, width = tensor.shape[1:3]
    taps = [-(-kernel // stride) for kernel, stride in zip(weights.shape[2:], strides, strict=True)]
    first = [min(begin // s, t - 1) for begin, s, t in zip(begins, strides, taps, strict=True)]
    last = [(begin + out - 1) // s for begin, out, s in zip(begins, outputs, strides, strict=True)]
    pads = tuple(
        (t - 1 - m, max(n - size + 1, 0))
        for t, m, n, size in zip(taps, first, last, (height, width), strict=True)
    )
    counts = tuple(
        size + before + after - t + 1
        for size, (before, after), t in zip((height, width), pads, taps, strict=True)
    )
    window = Window((taps[0], taps[1]), (1, 1), (1, 1), pads, (height, width), (counts[0], counts[1]))
    if window.scheme == VALID:
        tensor = zero_padded(emission, tensor, pads, name)
    bias = np.tile(read_bias(emission, node, weights.shape[1]), strides[0] * strides[1])
    kernels = Kernels(_phase_weights(weights, strides, taps), bias)
    return convolved(emission, node, tensor, kernels, window, name=f"{name};phases"), first


def _phase_weights(weights: NDArray[Any], strides: tuple[int, ...], taps: list[int]) -> NDArray[Any]:
    """Return the kernels of all phases, (s·s·outputs, inputs, taps, taps), from (inputs, outputs, H, W)."""
    grown = [(0, t * s - k) for t, s, k in zip(taps, strides, weights.shape[2:], strict=True)]
    padded = np.pad(weights, [(0, 0), (0, 0), *grown])
    inputs, outputs = weights.shape[:2]
    split = padded.reshape(inputs, outputs, taps[0], strides[0], taps[1], strides[1])
    phases = split[:, :, ::-1, :, ::-1, :].transpose(3, 5, 1, 0, 2, 4)
    return phases.reshape(strides[0] * strides[1] * outputs, inputs, *taps)


def interleaved(
    emission: Emission, node: Node, tensor: Tensor, block: tuple[int, ...], *, name: str
) -> Tensor:
    """Return (N, H·a, W·b, C) from (N, H, W, a·b·C): DEPTH_TO_SPACE, for which there is no int8 recipe."""
    a, b = block
    if (a, b) == (1, 1):
        return tensor
    batch, height, width, phases = tensor.shape
    channels = phases // (a * b)
    rows = emission.reshape(node, tensor, (batch * height, width, a, b * channels), f"{name};rows")
    turned = emission.transpose(node, rows, (0, 2, 1, 3), f"{name};turned")
    return emission.reshape(node, turned, (batch, height * a, width * b, channels), name)


def _dense(weights: NDArray[Any], groups: int) -> NDArray[Any]:
    """Return (inputs, outputs, …) from (inputs, outputs / groups, …): one group, zeros between the groups."""
    inputs, outputs = weights.shape[:2]
    dense = np.zeros((inputs, outputs * groups, *weights.shape[2:]), dtype=weights.dtype)
    rows = inputs // groups
    for group in range(groups):
        here = slice(group * rows, (group + 1) * rows)
        dense[here, group * outputs : (group + 1) * outputs] = weights[here]
    return dense


def _dilated(weights: NDArray[Any], dilations: tuple[int, ...]) -> NDArray[Any]:
    sizes = [(k - 1) * d + 1 for k, d in zip(weights.shape[2:], dilations, strict=True)]
    dilated = np.zeros((*weights.shape[:2], *sizes), dtype=weights.dtype)
    dilated[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weights
    return dilated


def _pads_before(
    emission: Emission, node: Node, kernel: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...]:
    """Return how much is cropped at the beginning; the output's shape says the rest."""
    rank = len(kernel)
    sizes = emission.fact(node.inputs[0]).shape[2:]
    outputs = emission.fact(node.outputs[0]).shape[2:]
    node.attribute("kernel_shape")
    extra = node.attribute("output_padding", (0,) * rank)
    pads = tuple(node.attribute("pads", (0,) * 2 * rank))
    auto_pad = node.attribute("auto_pad", "NOTSET")
    explicit = node.attribute("output_shape") is None
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.unsupported(f"auto_pad {auto_pad!r:.20} is unknown")
    if min(*sizes, *outputs) < 1 or min(pads) < 0:
        raise node.unsupported("its spatial sizes grow with the batch, or its pads are negative")
    if explicit and auto_pad in ("NOTSET", "VALID"):
        return pads[:rank] if auto_pad == "NOTSET" else (0,) * rank
    totals = [
        max(s * (size - 1) + more + k - out, 0)
        for s, size, more, k, out in zip(strides, sizes, extra, kernel, outputs, strict=True)
    ]
    upper = auto_pad == "SAME_UPPER"
    return tuple(total // 2 if upper else total - total // 2 for total in totals)


def _depth_to_space(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    block, mode = node.attribute("blocksize"), node.attribute("mode", "DCR")
    tensor, name = emission.get(node, node.inputs[0], channels_last(4)), node.outputs[0]
    if mode == "CRD":
        order = np.arange(tensor.shape[-1]).reshape(-1, block * block).T.reshape(-1)
        tensor = gathered(emission, tensor, order, 3, name=f"{name};ordered")
    tensor = interleaved(emission, node, tensor, (block, block), name=name)
    emission.put(node, tensor, channels_last(4))


def _space_to_depth(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    options = schema.SpaceToDepthOptionsT()
    options.blockSize = node.attribute("blocksize")
    tensor, name = emission.get(node, node.inputs[0], channels_last(4)), node.outputs[0]
    batch, channels, height, width = emission.fact(name).shape
    shape = (batch, height, width, channels)
    emission.put(node, emission.emit(B.SPACE_TO_DEPTH, [tensor], name, shape, options), channels_last(4))


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
