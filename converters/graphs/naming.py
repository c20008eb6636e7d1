"""Names in ONNX graphs: what people and reports call a layer by.

Graphs that a person's exporter wrote keep the names that they have; `name_nodes` only fills gaps. Graphs that
are made here get names that follow from what they compute (`name_by_kind`), so that the same model has the
same names however often the exporter ran. Reports name layers so, too:

==========  ==================================================================================================
a node      ``MatMul_0``: its kind, and how many of that kind come before it
a tensor    after the node that gives it, ``MatMul_0``; a second output ``Split_0:1``
a constant  after the first node that takes it, ``MatMul_0.1`` being what ``MatMul_0`` multiplies with
in a body   after the node that holds it, ``If_0/1/Add_0``
==========  ==================================================================================================
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from converters.graphs.onnx_graph import all_nodes, bodies, taken
from converters.graphs.versions import GRAPH_NAME

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto


def name_nodes(model: ModelProto) -> None:
    """Give a name to every node that has none, in bodies too, and another one to those that share theirs."""
    nodes = list(all_nodes(model.graph))
    used = {node.name for node in nodes}
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in seen:
            name = f"{node.name or node.op_type}_{index}"
            while name in used:
                name += "_"
            node.name = name
            used.add(name)
        seen.add(node.name)


def name_by_kind(graph: GraphProto, names: dict[str, str], prefix: str = "") -> None:
    """Name nodes, tensors and constants by the kinds of nodes, as this file's head says.

    Args:
        graph: The graph, or a body.
        names: New names by old ones, of the graph's inputs, of what is around it, and of what must be
            called so.
        prefix: Of the names that are given.
    """
    constants = {tensor.name for tensor in graph.initializer}
    counts: Counter[str] = Counter()
    for node in graph.node:
        node.name = f"{prefix}{node.op_type}_{counts[node.op_type]}"
        counts[node.op_type] += 1
        inner = sorted(set(taken(node)).difference(node.input))  # that only the node's bodies take
        for position, name in enumerate([*node.input, *inner]):
            if name in constants:
                names.setdefault(name, f"{node.name}.{position}")
        for position, name in enumerate(filter(None, node.output)):
            names.setdefault(name, f"{node.name}:{position}" if position else node.name)
        for number, body in enumerate(bodies(node)):
            start = f"{node.name}/{number}/"
            entries = {value.name: f"{start}input.{at}" for at, value in enumerate(body.input)}
            name_by_kind(body, {**names, **entries}, start)
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.doc_string = ""
    for declared in (*graph.initializer, *graph.input, *graph.output):
        declared.name = names.get(declared.name, declared.name)
        declared.doc_string = ""
    graph.name = prefix or GRAPH_NAME
    del graph.value_info[:]
