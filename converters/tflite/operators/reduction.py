"""Reductions over axes, global pools, and the position of the extreme."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission, Layout, permuted
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, require_dtype

B = schema.BuiltinOperator
MAX_RANK = 4


def _reduce(
    code: int,
    before: int | None,
    after: int | None,
    emission: Emission,
    node: Node,
) -> None:
    """Emit a reduction, with an operator for each element in front of it and behind it."""
    axes, keep = _axes(emission, node), bool(node.attribute("keepdims", 1))
    _reduced(emission, node, code, axes, keep=keep, before=before, after=after)


def _global_pool(code: int, emission: Emission, node: Node) -> None:
    rank = len(emission.fact(node.inputs[0]).shape)
    _reduced(emission, node, code, tuple(range(2, rank)), keep=True)


def _reduced(
    emission: Emission,
    node: Node,
    code: int,
    axes: tuple[int, ...],
    *,
    keep: bool,
    before: int | None = None,
    after: int | None = None,
) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    name, layout = node.outputs[0], emission.layout(node.inputs[0])
    if len(layout) > MAX_RANK:
        raise node.unsupported(f"it has {len(layout)} dimensions; {MAX_RANK} are possible")
    tensor = emission.get(node, node.inputs[0], layout)
    result_layout = layout if keep else _without(layout, axes)
    shape = permuted(emission.fact(name).shape, result_layout)
    if before is not None:
        tensor = _each(emission, before, tensor, f"{name};terms")
    if axes:
        options = schema.ReducerOptionsT()
        options.keepDims = keep
        positions = np.array(sorted(layout.index(axis) for axis in axes), dtype=np.int32)
        constant = emission.const(f"{name};axes", positions)
        step = name if after is None else f"{name};reduced"
        tensor = emission.emit(code, [tensor, constant], step, shape, options)
    if after is not None:
        tensor = _each(emission, after, tensor, name)
    emission.put(node, tensor, result_layout)


def _each(emission: Emission, code: int, tensor: Tensor, name: str) -> Tensor:
    options = {B.SQUARE: schema.SquareOptionsT, B.ABS: schema.AbsOptionsT}.get(code)
    return emission.emit(code, [tensor], name, tensor.shape, options() if options else None)


def _axes(emission: Emission, node: Node) -> tuple[int, ...]:
    """Return the axes: an attribute in old operator sets, an input in new ones, all where none is given."""
    rank = len(emission.fact(node.inputs[0]).shape)
    given = node.attribute("axes")
    if given is None:
        constant = emission.constant(node, 1)
        given = None if constant is None else constant.tolist()
    if not given:
        return () if node.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    node.attribute("noop_with_empty_axes")
    return tuple(sorted({axis % rank for axis in given}))


def _without(layout: Layout, axes: tuple[int, ...]) -> Layout:
    """Return the layout of what is left when axes are dropped."""
    left = [axis for axis in layout if axis not in axes]
    return tuple(sorted(left).index(axis) for axis in left)


def _extreme(code: int, emission: Emission, node: Node) -> None:
    """The first position of the greatest or least element along an axis, as int64."""
    require_dtype(emission, node, node.inputs[0], FLOAT)
    if node.attribute("select_last_index", 0):
        raise node.unsupported("TFLite gives the first position, not the last one")
    name, layout = node.outputs[0], emission.layout(node.inputs[0])
    axis = node.attribute("axis", 0) % len(layout)
    keep = bool(node.attribute("keepdims", 1))
    tensor = emission.get(node, node.inputs[0], layout)
    options = schema.ArgMaxOptionsT() if code == B.ARG_MAX else schema.ArgMinOptionsT()
    options.outputType = schema.TensorType.INT64
    constant = emission.const(f"{name};axis", np.array(layout.index(axis), dtype=np.int32))
    left = tuple(size for at, size in zip(layout, tensor.shape, strict=True) if at != axis)
    step = f"{name};flat" if keep else name
    result = emission.emit(code, [tensor, constant], step, left, options, dtype=np.int64)
    if keep:
        shape = permuted(emission.fact(name).shape, layout)
        return emission.put(node, emission.reshape(node, result, shape, name), layout)
    return emission.put(node, result, _without(layout, (axis,)))


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {
    "ReduceMean": partial(_reduce, B.MEAN, None, None),
    "ReduceSum": partial(_reduce, B.SUM, None, None),
    "ReduceMax": partial(_reduce, B.REDUCE_MAX, None, None),
    "ReduceMin": partial(_reduce, B.REDUCE_MIN, None, None),
    "ReduceProd": partial(_reduce, B.REDUCE_PROD, None, None),
    "ReduceSumSquare": partial(_reduce, B.SUM, B.SQUARE, None),
    "ReduceL1": partial(_reduce, B.SUM, B.ABS, None),
    "ReduceL2": partial(_reduce, B.SUM, B.SQUARE, B.SQRT),
    "ReduceLogSum": partial(_reduce, B.SUM, None, B.LOG),
    "GlobalAveragePool": partial(_global_pool, B.MEAN),
    "GlobalMaxPool": partial(_global_pool, B.REDUCE_MAX),
    "ArgMax": partial(_extreme, B.ARG_MAX),
    "ArgMin": partial(_extreme, B.ARG_MIN),
}
