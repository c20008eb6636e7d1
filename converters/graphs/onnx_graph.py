"""ONNX graphs as all that reads and rewrites them needs them: constants, who gives and takes a tensor, nodes.

A node may hold graphs of its own, its *bodies*: the branches of If, the step of Loop. A body takes tensors
from around it by their names, so that whoever asks what a node takes must look into its bodies too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto


def parsed(model: bytes) -> ModelProto:
    """Return an ONNX model from its bytes.

    Raises:
        ConversionFailed: They are not one.
    """
    import onnx

    try:
        found = onnx.load_from_string(model)
    except Exception as error:  # protobuf's errors have no stable home to import them from
        raise ConversionFailed("The model is not ONNX.") from error
    if not found.graph.node:
        raise ConversionFailed("The model is not ONNX, or its graph is empty.")
    return found


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Return the value of a node's attribute, or the default that its operator's specification states."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs inside a node."""
    from onnx import AttributeProto

    for each in node.attribute:
        if each.type == AttributeProto.GRAPH:
            yield each.g
        yield from each.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of a graph, each before those of its bodies."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from all_nodes(body)


def taken(node: NodeProto) -> list[str]:
    """Return the tensors that a node takes, each once, also those that its bodies take from around them."""
    names = dict.fromkeys(node.input)
    for body in bodies(node):
        own = _own(body)
        inner = [name for child in body.node for name in taken(child)]
        outer = (name for name in [*inner, *(value.name for value in body.output)] if name not in own)
        names.update(dict.fromkeys(outer))
    return [name for name in names if name]


def let_take(node: NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and its bodies, take other tensors.

    Args:
        node: Changed in place.
        names: New names by old ones; what is not among them stays.
    """
    node.input[:] = [names.get(name, name) for name in node.input]
    for body in bodies(node):
        own = _own(body)
        around = {old: new for old, new in names.items() if old not in own}
        for inner in body.node:
            let_take(inner, around)


def initializers(graph: GraphProto) -> dict[str, TensorProto]:
    """Return the graph's constants by name, without those that its inputs may override."""
    inputs = {value.name for value in graph.input}
    return {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Return the node that gives each tensor."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that take each tensor."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in taken(node):
            found.setdefault(name, []).append(node)
    return found


def float_tensors(inferred: GraphProto) -> set[str]:
    """Return the names of all float32 tensors, constants included, of a graph whose shapes were inferred."""
    from onnx import TensorProto

    values = [*inferred.input, *inferred.value_info, *inferred.output]
    typed = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return typed | {tensor.name for tensor in inferred.initializer if tensor.data_type == TensorProto.FLOAT}


def add_constant(graph: GraphProto, name: str, value: NDArray[Any], constants: dict[str, TensorProto]) -> str:
    """Add a constant to the graph under a free name like this one, and return that name.

    Args:
        graph: The graph.
        name: What it should be called.
        value: Its value.
        constants: The graph's `initializers`; the new one is added.
    """
    from onnx import numpy_helper

    while name in constants:
        name += "_"
    graph.initializer.append(numpy_helper.from_array(value, name))
    constants[name] = graph.initializer[-1]
    return name


def set_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Replace the graph's nodes by these, which may be some of its own."""
    copies = [copied(node) for node in nodes]  # the graph owns what it holds, and clears it
    del graph.node[:]
    graph.node.extend(copies)


def copied(message: Any) -> Any:
    """Return a copy of a protobuf message that nothing owns."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _own(body: GraphProto) -> set[str]:
    """Return the names that mean a tensor of the body itself, whatever is around it."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    return own.union(name for node in body.node for name in node.output)
