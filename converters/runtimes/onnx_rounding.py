"""How far onnxruntime's answers may differ on other processors and releases.

Its constants are changed at random, see `converters.runtimes.rounding`, each by the length of the sum that it
takes part in: weights by that of a dot product, the constants of a scaler by little. Trees compare and do not
round; the values of their leaves are summed, and are changed as weights are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.graphs.onnx_graph import parsed
from converters.graphs.ort_format import is_ort_format, ort_graph, ort_nodes
from converters.runtimes.rounding import FEWEST_TERMS, noisy

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
        constants: The shapes of the constants that it takes, by name; quantized weights are called by the
            name of their scale.
        lists: Its attributes that are lists of numbers.
    """

    operator: str
    constants: dict[str, tuple[int, ...]]
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
    nodes = _onnx_nodes(changed)
    terms = _terms_by_constant(nodes)
    for tensor in changed.graph.initializer:
        if tensor.data_type in {TensorProto.FLOAT, TensorProto.FLOAT16}:
            exact = numpy_helper.to_array(tensor)
            values = noisy(exact, terms.get(tensor.name, FEWEST_TERMS), random)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node, known in zip(changed.graph.node, nodes, strict=True):
        for attribute in node.attribute:
            if attribute.name in _SUMMED and attribute.floats:
                listed = np.array(attribute.floats, dtype=np.float32)
                attribute.floats[:] = noisy(listed, _terms_in_lists(known), random).tolist()
    return bytes(changed.SerializeToString())


def _noisy_ort(model: bytes, random: np.random.RandomState) -> bytes:
    from onnx import TensorProto

    changed = bytearray(model)
    graph = ort_graph(changed)
    nodes = _ort_nodes(graph)
    terms = _terms_by_constant(nodes)
    dtypes = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
    for tensor in (graph.Initializers(i) for i in range(graph.InitializersLength())):
        if tensor.DataType() in dtypes and not tensor.RawDataIsNone():
            values = tensor.RawDataAsNumpy().view(dtypes[tensor.DataType()])
            values[:] = noisy(values, terms.get(tensor.Name().decode(), FEWEST_TERMS), random)
    for node, known in zip(ort_nodes(graph), nodes, strict=True):
        for attribute in (node.Attributes(i) for i in range(node.AttributesLength())):
            if attribute.Name().decode() in _SUMMED and attribute.FloatsLength():
                values = attribute.FloatsAsNumpy()
                values[:] = noisy(values, _terms_in_lists(known), random)
    return bytes(changed)


def _onnx_nodes(model: ModelProto) -> list[_Node]:
    shapes = {tensor.name: (tensor.name, tuple(tensor.dims)) for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = (node.input[1], shapes[node.input[0]][1])
        lists = {a.name: np.array(a.floats or a.ints or [a.i]) for a in node.attribute}
        found.append(_Node(node.op_type, dict(shapes[name] for name in node.input if name in shapes), lists))
    return found


def _ort_nodes(graph: Any) -> list[_Node]:
    tensors = (graph.Initializers(i) for i in range(graph.InitializersLength()))
    shapes = {
        tensor.Name().decode(): tuple(map(int, np.atleast_1d(tensor.DimsAsNumpy()))) for tensor in tensors
    }
    found = []
    for node in ort_nodes(graph):
        taken = [node.Inputs(i).decode() for i in range(node.InputsLength())]
        attributes = [node.Attributes(i) for i in range(node.AttributesLength())]
        lists = {
            a.Name().decode(): a.FloatsAsNumpy() if a.FloatsLength() else a.IntsAsNumpy()
            for a in attributes
            if a.FloatsLength() or a.IntsLength()
        }
        constants = {name: shapes[name] for name in taken if name in shapes}
        found.append(_Node(node.OpType().decode(), constants, lists))
    return found


def _terms_by_constant(nodes: Iterable[_Node]) -> dict[str, int]:
    """Return, for each constant, the number of terms of the longest sum that it takes part in."""
    found: dict[str, int] = {}
    for node in nodes:
        terms = _terms(node)
        for name in node.constants:
            found[name] = max(terms, found.get(name, 0))
    return found


def _terms(node: _Node) -> int:
    """Return the number of terms of the sums that a node makes with its constants."""
    if node.operator in {"DequantizeLinear", "QuantizeLinear"}:
        return FEWEST_TERMS
    if node.operator == "MatMulNBits":
        return int(node.lists["K"][0])
    weights = [shape for shape in node.constants.values() if len(shape) > 1]
    if node.operator.endswith("Conv"):  # also fused ones: (outputs, inputs, height, width)
        return max([FEWEST_TERMS, *(math.prod(shape[1:]) for shape in weights)])
    # A bound for every layout.
    return max([FEWEST_TERMS, *(math.prod(shape) // max(min(shape), 1) for shape in weights)])


def _terms_in_lists(node: _Node) -> int:
    """Return the number of terms of the sums that are made of a node's attributes."""
    lists = node.lists
    found = [FEWEST_TERMS, *(len(np.unique(lists[name])) for name in _TREES if name in lists)]
    if "support_vectors" in lists:
        vectors = int(np.sum(lists.get("vectors_per_class", len(lists["coefficients"]))))
        found.append(vectors + len(lists["support_vectors"]) // max(vectors, 1))
    elif "coefficients" in lists:
        found.append(len(lists["coefficients"]) // max(len(lists.get("intercepts", [])), 1))
    return max(found)
