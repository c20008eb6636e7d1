"""Rewrites of the emitted graph that leave its answers as they are, up to rounding.

=====================================================  ====================================================
found                                                  becomes
=====================================================  ====================================================
RESHAPE → RESHAPE                                      one RESHAPE, or none
TRANSPOSE to (N, C, H, W) → flattening → dense layer   flattening → dense layer with its weights reordered
product → MUL, DIV, ADD, SUB by a number per channel   product with other weights and bias
product or arithmetic → RELU, RELU6, RELU_N1_TO_1      the same with a fused activation
=====================================================  ====================================================

"Product" means CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED with constant weights; between it and what is
folded into it there may be operators that only move elements. A tensor that is read twice, or is an output of
the model, is never rewritten away. Dropping an operator hands its output tensor, and so its name, to the
operator before it: a name of the source survives as long as its tensor exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Graph, Operator, Tensor, at_batch_one

B = schema.BuiltinOperator
NONE = schema.ActivationFunctionType.NONE
CHANNEL_AXIS = {B.CONV_2D: 0, B.DEPTHWISE_CONV_2D: 3, B.FULLY_CONNECTED: 0}
"""Where the weights of a product count its outputs."""
ACTIVATIONS = {
    B.RELU: schema.ActivationFunctionType.RELU,
    B.RELU6: schema.ActivationFunctionType.RELU6,
    B.RELU_N1_TO_1: schema.ActivationFunctionType.RELU_N1_TO_1,
}
FUSING = frozenset({*CHANNEL_AXIS, B.ADD, B.SUB, B.MUL, B.DIV})
MOVING = frozenset({B.RESHAPE, B.TRANSPOSE, B.SLICE})
"""What only moves elements, so that arithmetic on them may as well come before it."""


def fuse(graph: Graph) -> None:
    """Rewrite a graph in place."""
    rewriting = _Rewriting(graph)
    for rewrite in (_flattened, _merged_reshape, _folded_affine, _fused_activation):
        for operator in list(graph.operators):
            rewrite(rewriting, operator)
    rewriting.sweep()


class _Rewriting:
    """A graph with its producers and consumers at hand."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._outputs = {id(tensor) for tensor in graph.outputs.values()}
        self._producers = {id(tensor): op for op in graph.operators for tensor in op.outputs}
        self._readers: dict[int, list[Operator]] = {}
        for operator in graph.operators:
            for tensor in operator.inputs:
                self._readers.setdefault(id(tensor), []).append(operator)

    def producer(self, tensor: Tensor | None) -> Operator | None:
        """Return what writes a tensor that only one operator reads; None if anything else depends on it."""
        if tensor is None or id(tensor) in self._outputs or len(self._readers.get(id(tensor), [])) != 1:
            return None
        return self._producers.get(id(tensor))

    def writer(self, tensor: Tensor) -> Operator | None:
        """Return what writes a tensor; None for an input or a constant."""
        return self._producers.get(id(tensor))

    def chain(self, tensor: Tensor | None) -> list[Operator]:
        """Return the operator whose result a tensor is, and those that only moved its elements since.

        Nothing if something else reads what lies between.
        """
        operator = self.producer(tensor)
        if operator is None:
            return []
        if operator.code not in MOVING:
            return [operator]
        before = self.chain(operator.inputs[0])
        return [*before, operator] if before else []

    def readers(self, tensor: Tensor) -> Sequence[Operator]:
        """Return what reads a tensor; nothing if it is an output of the model."""
        return () if id(tensor) in self._outputs else self._readers.get(id(tensor), ())

    def drop(self, operator: Operator, before: Operator, into: Operator) -> None:
        """Remove an operator that another has taken over; the one before it writes its output instead."""
        into.nodes += [name for name in operator.nodes if name not in into.nodes]
        self.graph.operators.remove(operator)
        before.outputs[0] = operator.output
        self._producers[id(operator.output)] = before

    def rewire(self, operator: Operator, index: int, tensor: Tensor) -> None:
        """Let an operator read another tensor."""
        self._readers[id(operator.inputs[index])].remove(operator)
        operator.inputs[index] = tensor
        self._readers.setdefault(id(tensor), []).append(operator)

    def replace(self, operator: Operator, tensor: Tensor) -> None:
        """Let everything that reads an operator's output read a tensor instead."""
        for reader in list(self._readers.get(id(operator.output), ())):
            for index, read in enumerate(reader.inputs):
                if read is operator.output:
                    self.rewire(reader, index, tensor)

    def is_output(self, tensor: Tensor) -> bool:
        """Return whether the model gives a tensor to its caller."""
        return id(tensor) in self._outputs

    def sweep(self) -> None:
        """Remove operators whose outputs nobody reads."""
        wanted = set(self._outputs)
        kept = []
        for operator in reversed(self.graph.operators):
            if any(id(tensor) in wanted for tensor in operator.outputs):
                wanted.update(id(tensor) for tensor in operator.inputs)
                kept.append(operator)
        self.graph.operators[:] = kept[::-1]


def _merged_reshape(rewriting: _Rewriting, reshape: Operator) -> None:
    if reshape.code != B.RESHAPE:
        return
    source = reshape.inputs[0]
    assert source is not None
    before = rewriting.writer(source)
    if before is not None and before.code == B.RESHAPE:
        first = before.inputs[0]
        assert first is not None
        rewriting.rewire(reshape, 0, first)
        source = first
    if source.shape == reshape.output.shape and not rewriting.is_output(reshape.output):
        rewriting.replace(reshape, source)


def _flattened(rewriting: _Rewriting, reshape: Operator) -> None:
    """Move the transpose in front of a Flatten into the weights of the dense layers behind it."""
    transpose = rewriting.producer(reshape.inputs[0]) if reshape.code == B.RESHAPE else None
    if transpose is None or transpose.code != B.TRANSPOSE:
        return
    image, axes = transpose.inputs
    assert image is not None
    assert axes is not None
    assert axes.value is not None
    order = axes.value.tolist()
    layers = rewriting.readers(reshape.output)
    flat = reshape.output.shape == (image.shape[0], int(np.prod(image.shape[1:])))
    if not (flat and order[0] == 0 and layers and all(_is_dense(layer, reshape.output) for layer in layers)):
        return
    # Column j of the weights belongs to element j of the transposed image: where was that in the image?
    before = np.arange(np.prod(image.shape[1:])).reshape(image.shape[1:])
    columns = before.transpose([axis - 1 for axis in order[1:]]).reshape(-1)
    for layer in layers:
        weights = _constant(layer, 1)
        reordered = np.empty_like(weights)
        reordered[:, columns] = weights
        _set_constant(layer, 1, reordered)
    rewriting.rewire(reshape, 0, image)


def _is_dense(operator: Operator, source: Tensor) -> bool:
    weights = operator.inputs[1] if len(operator.inputs) > 1 else None
    return (
        operator.code == B.FULLY_CONNECTED
        and operator.inputs[0] is source
        and weights is not None
        and weights.value is not None
    )


def _folded_affine(rewriting: _Rewriting, operator: Operator) -> None:
    """Fold arithmetic with one constant for each channel, or one for all, into the product before it."""
    if operator.code not in (B.ADD, B.SUB, B.MUL, B.DIV):
        return
    found = _constant_operand(operator)
    if found is None or operator.options.fusedActivationFunction != NONE:
        return
    tensor, value = found
    chain = rewriting.chain(tensor)
    if not chain or not _is_bare_product(chain[0]) or tensor.shape != operator.output.shape:
        return
    if not np.isfinite(value).all() or (operator.code == B.DIV and not np.all(value)):
        return
    by_channel = _by_channel(chain, value)
    if by_channel is not None:
        _apply(chain[0], operator.code, by_channel)
        rewriting.drop(operator, chain[-1], chain[0])


def _by_channel(chain: Sequence[Operator], value: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Return what a constant behind a chain is for each channel of the product in front; None if it differs.

    The channels' numbers are sent through the chain, so that each element behind it says where it came from.
    """
    shape = at_batch_one(chain[0].output.shape)
    channels = np.broadcast_to(np.arange(shape[-1]), shape)
    for moving in chain[1:]:
        channels = _moved(moving, channels)
    spread = np.broadcast_to(value, channels.shape)
    by_channel = np.ones(shape[-1])
    by_channel[channels] = spread
    return by_channel if np.array_equal(by_channel[channels], spread) else None


def _moved(operator: Operator, elements: NDArray[Any]) -> NDArray[Any]:
    """Return what an operator of `MOVING` makes of its input."""
    if operator.code == B.TRANSPOSE:
        return elements.transpose(_constant(operator, 1))
    if operator.code == B.SLICE:
        begin, shape = _constant(operator, 1).tolist(), at_batch_one(operator.output.shape)
        return elements[tuple(slice(at, at + size) for at, size in zip(begin, shape, strict=True))]
    return elements.reshape(at_batch_one(operator.output.shape))


def _constant_operand(operator: Operator) -> tuple[Tensor, NDArray[np.float32]] | None:
    """Return the computed and the constant operand, if there is one of each and their order is possible."""
    left, right = operator.inputs
    assert left is not None
    assert right is not None
    if right.value is not None and left.value is None:
        return left, right.value
    if left.value is not None and right.value is None and operator.code in (B.ADD, B.MUL):
        return right, left.value
    return None


def _is_bare_product(operator: Operator) -> bool:
    return (
        operator.code in CHANNEL_AXIS
        and operator.options.fusedActivationFunction == NONE
        and all(tensor is not None and tensor.value is not None for tensor in operator.inputs[1:3])
    )


def _apply(product: Operator, code: int, value: NDArray[np.float64]) -> None:
    bias = _constant(product, 2).astype(np.float64)
    if code in (B.MUL, B.DIV):
        factor = value if code == B.MUL else 1 / value
        weights = _constant(product, 1)
        shape = [1] * weights.ndim
        shape[CHANNEL_AXIS[product.code]] = -1
        _set_constant(product, 1, (weights * factor.reshape(shape)).astype(np.float32))
        bias *= factor
    else:
        bias += value if code == B.ADD else -value
    _set_constant(product, 2, bias.astype(np.float32))


def _fused_activation(rewriting: _Rewriting, operator: Operator) -> None:
    chain = rewriting.chain(operator.inputs[0]) if operator.code in ACTIVATIONS else []
    if chain and chain[0].code in FUSING and chain[0].options.fusedActivationFunction == NONE:
        chain[0].options.fusedActivationFunction = ACTIVATIONS[operator.code]
        rewriting.drop(operator, chain[-1], chain[0])


def _constant(operator: Operator, index: int) -> NDArray[Any]:
    tensor = operator.inputs[index]
    assert tensor is not None
    assert tensor.value is not None
    return tensor.value


def _set_constant(operator: Operator, index: int, value: NDArray[np.float32]) -> None:
    """Give an operator a constant of its own: another may read the old one."""
    tensor = operator.inputs[index]
    assert tensor is not None
    operator.inputs[index] = Tensor(tensor.name, value.shape, value.dtype, np.ascontiguousarray(value))
