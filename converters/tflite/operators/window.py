"""Sliding windows: kernels, strides, dilations and pads of convolutions and pools, in one and two dimensions.

TFLite knows two paddings. VALID adds nothing. SAME makes ceil(size / stride) positions and adds what that
takes, the odd one at the end:

    total = max((positions - 1) · stride + (kernel - 1) · dilation + 1 - size, 0),  before = total // 2

ONNX names any number of zeros before and after. Where they are those of SAME, SAME is written; otherwise the
tensor is padded first and the window is VALID. A window over one axis is written as one of height 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission, channels_last
from converters.tflite.node import Node

B = schema.BuiltinOperator
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """A window over height and width.

    Attributes:
        kernel: Sizes.
        strides: Steps.
        dilations: Distance of neighbours within the window.
        pads: What ONNX adds before and after, for each axis.
        sizes: Sizes of the input.
        positions: Sizes of the output.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: Pads
    sizes: tuple[int, int]
    positions: tuple[int, int]

    @property
    def reached(self) -> Pads:
        """The pads that windows really reach: rounding up adds some at the end, rounding down drops some."""
        return tuple(
            (before, max((count - 1) * stride + (kernel - 1) * dilation + 1 - size - before, 0))
            for (before, _), count, stride, kernel, dilation, size in zip(
                self.pads, self.positions, self.strides, self.kernel, self.dilations, self.sizes, strict=True
            )
        )

    @property
    def padded(self) -> bool:
        """Whether a window reaches beyond the input."""
        return any(before or after for before, after in self.reached)

    @property
    def scheme(self) -> int:
        """TFLite's padding: SAME where it gives the same, else VALID on a tensor that is padded before."""
        return int(SAME if self.is_same else VALID)

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME gives the same positions."""
        axes = zip(self.sizes, self.kernel, self.strides, self.dilations, strict=True)
        pads = tuple(same_pads(*axis) for axis in axes)
        counts = tuple(-(-size // stride) for size, stride in zip(self.sizes, self.strides, strict=True))
        return self.reached == pads and self.positions == counts


def same_pads(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return what SAME adds before and after."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def read_window(emission: Emission, node: Node, kernel: tuple[int, ...] | None = None) -> Window:
    """Return a node's window.

    Args:
        emission: The graph under way.
        node: A convolution or pool; its first input and output are (N, C, L) or (N, C, H, W).
        kernel: Sizes, where the weights give them.

    Raises:
        UnsupportedOperator: It has three axes or more, or sizes that grow with the batch.
    """
    sizes = emission.fact(node.inputs[0]).shape[2:]
    positions = emission.fact(node.outputs[0]).shape[2:]
    rank = len(sizes)
    if rank not in (1, 2):
        raise node.unsupported(f"it has {rank} spatial axes; 1 and 2 are possible")
    if min(*sizes, *positions) < 1:
        raise node.unsupported("its spatial sizes grow with the batch")
    kernel = tuple(node.attribute("kernel_shape", kernel))
    strides = tuple(node.attribute("strides", (1,) * rank))
    dilations = tuple(node.attribute("dilations", (1,) * rank))
    pads = tuple(node.attribute("pads", (0,) * 2 * rank))
    auto_pad = node.attribute("auto_pad", "NOTSET")
    if auto_pad == "NOTSET":
        pairs: Pads = tuple(zip(pads[:rank], pads[rank:], strict=True))
    elif auto_pad == "VALID":
        pairs = ((0, 0),) * rank
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        pairs = tuple(same_pads(*axis) for axis in zip(sizes, kernel, strides, dilations, strict=True))
        if auto_pad == "SAME_LOWER":
            pairs = tuple((after, before) for before, after in pairs)
    else:
        raise node.unsupported(f"auto_pad {auto_pad!r:.20} is unknown")
    if min(number for pair in pairs for number in pair) < 0:
        raise node.unsupported("its pads are negative")
    if rank == 1:
        return Window(
            (1, kernel[0]),
            (1, strides[0]),
            (1, dilations[0]),
            ((0, 0), *pairs),
            (1, sizes[0]),
            (1, positions[0]),
        )
    return Window(_pair(kernel), _pair(strides), _pair(dilations), pairs, _pair(sizes), _pair(positions))


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def image(emission: Emission, node: Node) -> Tensor:
    """Return a node's first input as (N, H, W, C), with H = 1 for a sequence."""
    name = node.inputs[0]
    rank = len(emission.fact(name).shape)
    tensor = emission.get(node, name, channels_last(rank))
    if rank == 4:
        return tensor
    batch, length, channels = tensor.shape
    return emission.reshape(node, tensor, (batch, 1, length, channels), f"{name};image")


def put_image(emission: Emission, node: Node, tensor: Tensor) -> None:
    """Say that (N, H, W, C), with H = 1 for a sequence, is a node's output."""
    name = node.outputs[0]
    rank = len(emission.fact(name).shape)
    if rank == 3:
        batch, _, length, channels = tensor.shape
        tensor.name = f"{name};image"
        tensor = emission.reshape(node, tensor, (batch, length, channels), name)
    emission.put(node, tensor, channels_last(rank))


def zero_padded(emission: Emission, tensor: Tensor, pads: Pads, name: str) -> Tensor:
    """Return (N, H, W, C) with zeros around height and width."""
    if not any(before or after for before, after in pads):
        return tensor
    return emission.emit(
        B.PAD,
        [tensor, padding(emission, pads, name)],
        f"{name};padded",
        padded_shape(tensor, pads),
        schema.PadOptionsT(),
    )


def padding(emission: Emission, pads: Pads, name: str) -> Tensor:
    """Return the constant, shape (4, 2), that the pad operators want."""
    return emission.const(f"{name};pads", np.array([(0, 0), *pads, (0, 0)], dtype=np.int32))


def padded_shape(tensor: Tensor, pads: Pads) -> tuple[int, ...]:
    """Return the shape of (N, H, W, C) after padding height and width."""
    batch, *sizes, channels = tensor.shape
    grown = (size + before + after for size, (before, after) in zip(sizes, pads, strict=True))
    return (batch, *grown, channels)
