"""Operators that take parts of tensors, put tensors together, or put something around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Shape, Tensor, signature
from converters.tflite.layout import Emission, Layout, permuted
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, NUMBERS, require_dtype, shared_layout

B = schema.BuiltinOperator
MAX_RANK = 4


def sliced(emission: Emission, tensor: Tensor, begin: Shape, extent: Shape, *, name: str) -> Tensor:
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
    constants = [
        emission.const(f"{name};begin", np.array(begin, dtype=np.int32)),
        emission.const(f"{name};size", np.array(signature(extent), dtype=np.int32)),
    ]
    options = schema.SliceOptionsT()
    return emission.emit(B.SLICE, [tensor, *constants], name, extent, options, dtype=tensor.dtype)


def gathered(emission: Emission, tensor: Tensor, indices: NDArray[Any], axis: int, *, name: str) -> Tensor:
    """Return some of a tensor's elements along one axis.

    Args:
        emission: The graph under way.
        tensor: What to take them from.
        indices: Which, in their order; their shape takes the place of the axis.
        axis: Of the tensor as it is in TFLite.
        name: Name of the result.
    """
    options = schema.GatherOptionsT()
    options.axis = axis
    constant = emission.const(f"{name};indices", indices.astype(np.int32))
    shape = (*tensor.shape[:axis], *indices.shape, *tensor.shape[axis + 1 :])
    return emission.emit(B.GATHER, [tensor, constant], name, shape, options, dtype=tensor.dtype)


def _concat(emission: Emission, node: Node) -> None:
    name = node.outputs[0]
    output = emission.fact(name)
    rank = len(output.shape)
    require_dtype(emission, node, node.inputs[0], NUMBERS)
    axis = node.attribute("axis") % rank
    if output.shape[axis] < 0:
        raise node.unsupported("it goes along the batch")
    layout = shared_layout(emission, node.inputs, rank)
    tensors = [emission.get(node, input_name, layout) for input_name in node.inputs]
    options = schema.ConcatenationOptionsT()
    options.axis = layout.index(axis)
    shape = permuted(output.shape, layout)
    result = emission.emit(B.CONCATENATION, tensors, name, shape, options, dtype=output.dtype)
    emission.put(node, result, layout)


def _split(emission: Emission, node: Node) -> None:
    node.attribute("num_outputs")  # the outputs' shapes say it
    layout = _ranked(emission, node)
    axis = node.attribute("axis", 0) % len(layout)
    tensor = emission.get(node, node.inputs[0], layout)
    position, offset = layout.index(axis), 0
    if tensor.shape[position] < 0:
        raise node.unsupported("it goes along the batch")
    for index, name in enumerate(node.outputs):
        if not name:
            raise node.unsupported("one of its outputs has no name")
        shape = permuted(emission.fact(name).shape, layout)
        begin = tuple(offset if at == position else 0 for at in range(len(layout)))
        emission.put(node, sliced(emission, tensor, begin, shape, name=name), layout, output=index)
        offset += shape[position]


def _slice(emission: Emission, node: Node) -> None:
    """Take ranges: SLICE where every step is 1, else the indices one by one."""
    layout = _ranked(emission, node)
    shape = emission.fact(node.inputs[0]).shape
    starts, ends = emission.required(node, 1), emission.required(node, 2)
    axes, steps = emission.constant(node, 3), emission.constant(node, 4)
    ranges = [range(abs(size)) for size in shape]
    for number, start in enumerate(starts.tolist()):
        axis = number if axes is None else int(axes[number]) % len(shape)
        step = 1 if steps is None else int(steps[number])
        ranges[axis] = ranges[axis][slice(start, int(ends[number]), step)]
        if shape[axis] < 0 and emission.fact(node.outputs[0]).shape[axis] != shape[axis]:
            raise node.unsupported("it cuts the batch")
        if shape[axis] < 0 and step != 1:
            raise node.unsupported("it turns the batch around")
    tensor, name = emission.get(node, node.inputs[0], layout), node.outputs[0]
    result = tensor
    for axis, indices in enumerate(ranges):
        if indices.step != 1:
            result = gathered(
                emission, result, np.array(indices), layout.index(axis), name=f"{name};axis{axis}"
            )
            ranges[axis] = range(len(indices))
    target = permuted(emission.fact(name).shape, layout)
    begin = tuple(ranges[axis].start for axis in layout)
    emission.put(node, sliced(emission, result, begin, target, name=name), layout)


def _gather(emission: Emission, node: Node) -> None:
    name, data = node.outputs[0], emission.fact(node.inputs[0])
    require_dtype(emission, node, node.inputs[0], NUMBERS)
    axis = node.attribute("axis", 0) % len(data.shape)
    indices = emission.required(node, 1)
    if data.shape[axis] < 0:
        raise node.unsupported("it picks from the batch")
    layout = emission.layout(node.inputs[0]) if indices.ndim == 1 else None
    tensor = emission.get(node, node.inputs[0], layout)
    position = axis if layout is None else layout.index(axis)
    result = gathered(emission, tensor, indices % data.shape[axis], position, name=name)
    emission.put(node, result, layout)


def _pad(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    layout = _ranked(emission, node)
    mode, name = node.attribute("mode", "constant"), node.outputs[0]
    amounts = _amounts(emission, node, len(layout))
    tensor = emission.get(node, node.inputs[0], layout)
    if any(tensor.shape[at] < 0 and any(amounts[axis]) for at, axis in enumerate(layout)):
        raise node.unsupported("it pads the batch")
    pads = np.array([amounts[axis] for axis in layout], dtype=np.int32)
    inputs = [tensor, emission.const(f"{name};pads", pads)]
    shape = permuted(emission.fact(name).shape, layout)
    value = emission.constant(node, 2)
    if mode == "constant" and (value is None or value.item() == 0):
        result = emission.emit(B.PAD, inputs, name, shape, schema.PadOptionsT())
    elif mode == "constant":
        assert value is not None
        filling = emission.const(f"{name};value", value.reshape(1))
        result = emission.emit(B.PADV2, [*inputs, filling], name, shape, schema.PadV2OptionsT())
    elif mode == "reflect":
        options = schema.MirrorPadOptionsT()
        options.mode = schema.MirrorPadMode.REFLECT
        result = emission.emit(B.MIRROR_PAD, inputs, name, shape, options)
    else:
        raise node.unsupported(f"its mode is {mode!r:.20}")
    emission.put(node, result, layout)


def _amounts(emission: Emission, node: Node, rank: int) -> list[tuple[int, int]]:
    """Return what is added before and after, for each ONNX axis."""
    pads, axes = emission.required(node, 1), emission.constant(node, 3)
    named = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    half = len(pads) // 2
    amounts = [(0, 0)] * rank
    for axis, before, after in zip(named, pads[:half].tolist(), pads[half:].tolist(), strict=True):
        amounts[axis] = (before, after)
    if min(min(pair) for pair in amounts) < 0:
        raise node.unsupported("its pads are negative; Slice takes parts away")
    return amounts


def _ranked(emission: Emission, node: Node) -> Layout:
    require_dtype(emission, node, node.inputs[0], NUMBERS)
    layout = emission.layout(node.inputs[0])
    if len(layout) > MAX_RANK:
        raise node.unsupported(f"it has {len(layout)} dimensions; {MAX_RANK} are possible")
    return layout


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
}
