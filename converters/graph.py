"""Tidy ONNX graphs: one input, one output, core operators only, nothing that no output needs.

Exporters leave behind what devices should not carry: a label output with the operators that compute it,
casts from float to float, identities, and an import of ``ai.onnx.ml`` operators that nothing uses any more.

Opset 17 and IR version 8 are read by onnxruntime from 1.13 on (its documentation, "ONNX Runtime
compatibility"). `MINIMUM_RUNTIME_VERSION` is higher because the device package requires 1.20 anyway; fp32 and
int8 models made by this code were run on onnxruntime 1.20.0 and gave the golden outputs of 1.31.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    import onnx

RUNTIME = "onnxruntime"
MINIMUM_RUNTIME_VERSION = "1.20"
OPSET = 17
IR_VERSION = 8
INPUT = "input"
OUTPUT = "probabilities"
GRAPH_NAME = "muster"


def tidy(model: onnx.ModelProto, sample_shape: tuple[int, ...], classes: int) -> onnx.ModelProto:
    """Return a model from `INPUT`, float32 (N, …), to `OUTPUT`, float32 (N, classes), and nothing else.

    Args:
        model: Takes ``INPUT`` as (N, K), a sample having K elements; gives ``OUTPUT`` and more.
        sample_shape: Shape of one sample; with more than one dimension it is flattened inside the graph.
        classes: Number of classes.

    Raises:
        ConversionFailed: The model needs operators outside the core, or is not valid ONNX.
    """
    from onnx import TensorProto, checker, helper

    nodes = _without_passthroughs(_ancestors(model.graph.node, OUTPUT))
    if len(sample_shape) > 1:
        nodes.insert(0, helper.make_node("Flatten", [INPUT], ["flat"], name="Flatten", axis=1))
        for node in nodes[1:]:
            node.input[:] = ["flat" if name == INPUT else name for name in node.input]
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain})
    if foreign:
        raise ConversionFailed(f"The model needs operators that are not core ONNX: {', '.join(foreign)}.")
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        GRAPH_NAME,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *sample_shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    tidied = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    try:
        checker.check_model(tidied, full_check=True)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        raise ConversionFailed(f"The exported model is not valid ONNX: {error}.") from error
    return tidied


def _ancestors(nodes: Iterable[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """Return copies of the nodes on which the output depends, in the given (topological) order."""
    from onnx import NodeProto

    wanted, kept = {output}, []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            copy = NodeProto()
            copy.CopyFrom(node)
            kept.append(copy)
    if not kept:
        raise ConversionFailed(f"The model has no output {output!r}.")
    return kept[::-1]


def _without_passthroughs(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Drop identities and casts to float32; every tensor before the label's part is float32 already."""
    source: dict[str, str] = {}
    kept = []
    for node in nodes:
        node.input[:] = [source.get(name, name) for name in node.input]
        if _is_passthrough(node):
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    final = source.get(OUTPUT, OUTPUT)
    for node in kept:  # the graph's output keeps its name
        node.input[:] = [OUTPUT if name == final else name for name in node.input]
        node.output[:] = [OUTPUT if name == final else name for name in node.output]
    return kept


def _is_passthrough(node: onnx.NodeProto) -> bool:
    from onnx import TensorProto

    return node.op_type == "Identity" or (
        node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)
    )
