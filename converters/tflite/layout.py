"""Layouts: how a channels-first graph becomes a channels-last one with the fewest transposes.

ONNX keeps images as (N, C, H, W); TFLite's convolutions and pools want (N, H, W, C). Rather than rewrite
the graph, the emitter keeps for each ONNX tensor the *forms* in which it exists in TFLite. A form is the
same tensor with its axes in another order, and a layout is that order: axis ``i`` of the form is axis
``layout[i]`` of the ONNX tensor.

=================  =================  ================================
layout             rank 4             rank 3
=================  =================  ================================
plain              (0, 1, 2, 3)       (0, 1, 2)
channels last      (0, 2, 3, 1)       (0, 2, 1)
=================  =================  ================================

Whoever needs a tensor asks for a layout. If that form is missing it is made once, by a TRANSPOSE, or by a
RESHAPE where only axes of size 1 move; a constant is transposed here and now. Operators that work on each
element take whatever form exists and pass it on, those with an axis translate the axis, and ONNX's own
Transpose merely renames a form. So transposes appear only where the layout really has to change: as a rule
once behind the input, and in front of a Flatten, where `converters.tflite.fuse` moves them into the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Graph, Operator, Shape, Tensor, signature
from converters.tflite.node import Fact, Node
from converters.tflite.source import Source

Layout = tuple[int, ...]
MAX_TRANSPOSE_RANK = 5


def plain(rank: int) -> Layout:
    """Return the layout that is ONNX's own."""
    return tuple(range(rank))


def channels_last(rank: int) -> Layout:
    """Return the layout with axis 1 moved to the end."""
    return (0, *range(2, rank), 1)


def permuted(shape: Sequence[int], layout: Layout) -> Shape:
    """Return the shape of the form in a layout."""
    return tuple(shape[axis] for axis in layout)


class Emission:
    """A TFLite graph under way, and the forms of every ONNX tensor in it.

    Args:
        source: The ONNX graph.

    Attributes:
        graph: What has been emitted so far.
        node: Name of the ONNX node that is being emitted.
    """

    def __init__(self, source: Source) -> None:
        self.graph = Graph()
        self.node = ""
        self.source = source
        self._forms: dict[str, dict[Layout, Tensor]] = {}
        for name in source.inputs:
            fact = source.facts[name]
            self.graph.inputs[name] = Tensor(name, fact.shape, fact.dtype)
            self._forms[name] = {plain(len(fact.shape)): self.graph.inputs[name]}

    def fact(self, name: str) -> Fact:
        """Return what is known of an ONNX tensor."""
        return self.source.facts[name]

    def constant(self, node: Node, index: int) -> NDArray[Any] | None:
        """Return a node's input that has to be a constant; None where it is left out.

        Raises:
            UnsupportedOperator: It is computed.
        """
        if not node.has(index):
            return None
        value = self.fact(node.inputs[index]).value
        if value is None:
            raise node.unsupported(f"its input {node.inputs[index]!r:.80} is computed, not constant")
        return value

    def required(self, node: Node, index: int) -> NDArray[Any]:
        """Return a node's input that has to be there and a constant.

        Raises:
            UnsupportedOperator: It is left out or computed.
        """
        value = self.constant(node, index)
        if value is None:
            raise node.unsupported(f"its input {index} is left out")
        return value

    def layout(self, name: str) -> Layout:
        """Return the layout in which a tensor exists first; plain for a constant."""
        fallback = plain(len(self.fact(name).shape))
        return next(iter(self._forms.get(name, {fallback: None})))

    def exists(self, name: str) -> bool:
        """Return whether a computed tensor has a form."""
        return name in self._forms

    def get(self, node: Node, name: str, layout: Layout | None = None) -> Tensor:
        """Return the form of an ONNX tensor in a layout, plain if none is named.

        Raises:
            UnsupportedOperator: It would take a transpose of a rank that TFLite does not have.
        """
        fact = self.fact(name)
        layout = layout or plain(len(fact.shape))
        if fact.from_batch:
            raise node.unsupported(f"the contents of its input {name!r:.80} depend on the batch size")
        forms = self._forms.setdefault(name, {})
        if layout not in forms:
            forms[layout] = self._made(node, name, fact, layout)
        return forms[layout]

    def _made(self, node: Node, name: str, fact: Fact, layout: Layout) -> Tensor:
        if fact.value is not None:
            return self.const(name, np.transpose(fact.value, layout))
        have, tensor = next(iter(self._forms[name].items()))
        order = tuple(have.index(axis) for axis in layout)
        return self.transpose(node, tensor, order, name=f"{name};{_spelled(layout)}")

    def put(self, node: Node, tensor: Tensor, layout: Layout | None = None, *, output: int = 0) -> None:
        """Say that a tensor is the form of a node's output in a layout, plain if none is named."""
        name = node.outputs[output]
        layout = layout or plain(len(self.fact(name).shape))
        assert permuted(self.fact(name).shape, layout) == tensor.shape, (node, tensor, layout)
        self._forms.setdefault(name, {})[layout] = tensor

    def const(self, name: str, value: NDArray[Any]) -> Tensor:
        """Return a new constant."""
        value = np.asarray(value, order="C")  # not ascontiguousarray, which makes a scalar a vector
        return Tensor(name, value.shape, value.dtype, value)

    def emit(
        self,
        code: int,
        inputs: Sequence[Tensor | None],
        name: str,
        shape: Shape,
        options: Any = None,
        *,
        dtype: Any = np.float32,
    ) -> Tensor:
        """Append an operator with one output and return the output.

        Args:
            code: The ``BuiltinOperator``.
            inputs: What it reads.
            name: Name of the output: the ONNX tensor's, with ``;step`` behind it for a step towards it.
            shape: Shape of the output.
            options: The options table.
            dtype: Element type of the output.
        """
        output = Tensor(name, shape, np.dtype(dtype))
        self.graph.operators.append(Operator(code, list(inputs), [output], options, [self.node]))
        return output

    def reshape(self, node: Node, tensor: Tensor, shape: Shape, name: str) -> Tensor:
        """Return the tensor in another shape of as many elements.

        Raises:
            UnsupportedOperator: Two dimensions would grow with the batch.
        """
        if shape == tensor.shape:
            return tensor
        if sum(size < 0 for size in shape) > 1:
            raise node.unsupported("more than one dimension of its result grows with the batch")
        return self._reshaped(tensor, shape, name)

    def copy(self, tensor: Tensor, name: str) -> Tensor:
        """Return a tensor of its own with the same contents, written by a RESHAPE to the same shape."""
        return self._reshaped(tensor, tensor.shape, name)

    def _reshaped(self, tensor: Tensor, shape: Shape, name: str) -> Tensor:
        target = self.const(f"{name};shape", np.array(signature(shape), dtype=np.int32))
        options = schema.ReshapeOptionsT()
        options.newShape = list(signature(shape))
        return self.emit(
            schema.BuiltinOperator.RESHAPE, [tensor, target], name, shape, options, dtype=tensor.dtype
        )

    def transpose(self, node: Node, tensor: Tensor, order: Layout, name: str) -> Tensor:
        """Return the tensor with its axes in another order.

        Raises:
            UnsupportedOperator: It has more dimensions than TRANSPOSE takes.
        """
        shape = permuted(tensor.shape, order)
        if order == plain(len(order)):
            return tensor
        moved = [axis for axis in order if tensor.shape[axis] != 1]
        if moved == sorted(moved):
            return self.reshape(node, tensor, shape, name)
        if len(order) > MAX_TRANSPOSE_RANK:
            raise node.unsupported(f"it needs a transpose of {len(order)} dimensions")
        axes = self.const(f"{name};axes", np.array(order, dtype=np.int32))
        return self.emit(
            schema.BuiltinOperator.TRANSPOSE,
            [tensor, axes],
            name,
            shape,
            schema.TransposeOptionsT(),
            dtype=tensor.dtype,
        )


def _spelled(layout: Layout) -> str:
    return "axes" + "".join(map(str, layout))
