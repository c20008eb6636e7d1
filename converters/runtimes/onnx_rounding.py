"""How far onnxruntime's answers may differ on other processors and releases.

Its constants are changed at random, see `converters.runtimes.rounding`. Trees compare and do not round; the
values of their leaves are summed, and are changed as weights are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.ort_format import is_ort_format, ort_graph, ort_nodes
from converters.rewrite import parsed
from converters.runtimes.rounding import noisy

if TYPE_CHECKING:
    from onnx import ModelProto

_SUMMED = frozenset(
    {"base_values", "class_weights", "coefficients", "intercepts", "leaf_weights", "offset", "rho", "scale"}
    | {"support_vectors", "target_weights"}
)
"""Lists of numbers in attributes of ``ai.onnx.ml`` operators that sums are made of."""

_TREES = ("class_treeids", "target_treeids", "tree_roots")
"""Lists of numbers that tell the trees of an ensemble apart."""


class _Node(NamedTuple):
    """What matters here of a node.

    Attributes:
        operator: Its operator.
        shapes: Of the constants that it takes.
        lists: Its attributes that are lists of numbers.
    """

    operator: str
    shapes: list[tuple[int, ...]]
    lists: dict[str, NDArray[Any]]


def with_rounding_noise(model: bytes, random: np.random.RandomState) -> bytes:
    """Return a model with its constants changed at random, as `converters.runtimes.rounding` says.

    Args:
        model: An ONNX file or one in the ORT format.
        random: Where the amounts are drawn from.
    """
    return _noisy_ort(model, random) if is_ort_format(model) else _noisy_onnx(model, random)


def computes_in_float16(model: bytes) -> bool:
    """Return whether a model has constants in float16."""
    from onnx import TensorProto

    if is_ort_format(model):
        graph = ort_graph(model)
        tensors = (graph.Initializers(i) for i in range(graph.InitializersLength()))
        return any(tensor.DataType() == TensorProto.FLOAT16 for tensor in tensors)
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in parsed(model).graph.initializer)


def _noisy_onnx(model: bytes, random: np.random.RandomState) -> bytes:
    from onnx import TensorProto, numpy_helper

    changed = parsed(model)
    terms = _longest_sum(_onnx_nodes(changed))
    for tensor in changed.graph.initializer:
        if tensor.data_type in {TensorProto.FLOAT, TensorProto.FLOAT16}:
            changed_values = noisy(numpy_helper.to_array(tensor), terms, random)
            tensor.CopyFrom(numpy_helper.from_array(changed_values, tensor.name))
    for node in changed.graph.node:
        for attribute in node.attribute:
            if attribute.name in _SUMMED and attribute.floats:
                exact = np.array(attribute.floats, dtype=np.float32)
                attribute.floats[:] = noisy(exact, terms, random).tolist()
    return bytes(changed.SerializeToString())


def _noisy_ort(model: bytes, random: np.random.RandomState) -> bytes:
    from onnx import TensorProto

    changed = bytearray(model)
    graph = ort_graph(changed)
    terms = _longest_sum(_ort_nodes(graph))
    dtypes = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
    for tensor in (graph.Initializers(i) for i in range(graph.InitializersLength())):
        if tensor.DataType() in dtypes and not tensor.RawDataIsNone():
            values = tensor.RawDataAsNumpy().view(dtypes[tensor.DataType()])
            values[:] = noisy(values, terms, random)
    for node in ort_nodes(graph):
        for attribute in (node.Attributes(i) for i in range(node.AttributesLength())):
            if attribute.Name().decode() in _SUMMED and attribute.FloatsLength():
                values = attribute.FloatsAsNumpy()
                values[:] = noisy(values, terms, random)
    return bytes(changed)


def _onnx_nodes(model: ModelProto) -> Iterator[_Node]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]  # the node behind it takes the weights
        lists = {a.name: np.array(a.floats or a.ints) for a in node.attribute if a.floats or a.ints}
        yield _Node(node.op_type, [shapes[name] for name in node.input if name in shapes], lists)


def _ort_nodes(graph: Any) -> Iterator[_Node]:
    tensors = (graph.Initializers(i) for i in range(graph.InitializersLength()))
    shapes = {tensor.Name(): tuple(map(int, np.atleast_1d(tensor.DimsAsNumpy()))) for tensor in tensors}
    for node in ort_nodes(graph):
        taken = [node.Inputs(i) for i in range(node.InputsLength())]
        attributes = [node.Attributes(i) for i in range(node.AttributesLength())]
        lists = {
            a.Name().decode(): a.FloatsAsNumpy() if a.FloatsLength() else a.IntsAsNumpy()
            for a in attributes
            if a.FloatsLength() or a.IntsLength()
        }
        yield _Node(node.OpType().decode(), [shapes[name] for name in taken if name in shapes], lists)


def _longest_sum(nodes: Iterable[_Node]) -> int:
    """Return the number of terms of the longest sum in a graph."""
    found = [1]
    for node in nodes:
        found.extend(_terms(node.operator, shape) for shape in node.shapes if len(shape) > 1)
        trees = [node.lists[name] for name in _TREES if name in node.lists]
        found.extend(len(np.unique(ids)) for ids in trees)
        if "support_vectors" in node.lists:
            vectors = int(np.sum(node.lists.get("vectors_per_class", len(node.lists["coefficients"]))))
            found.append(vectors + len(node.lists["support_vectors"]) // max(vectors, 1))
        elif "coefficients" in node.lists:
            found.append(len(node.lists["coefficients"]) // max(len(node.lists.get("intercepts", [])), 1))
    return max(found)


def _terms(operator: str, shape: tuple[int, ...]) -> int:
    """Return the number of terms of the sums that weights of this shape, of two or more dimensions, make."""
    if operator.endswith("Conv"):  # also the fused and the quantized ones: (outputs, inputs, height, width)
        return math.prod(shape[1:])
    return math.prod(shape) // max(min(shape), 1)  # a bound for every layout
