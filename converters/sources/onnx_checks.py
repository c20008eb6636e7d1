"""Bring an ONNX model into one plain form, and refuse what no conversion can take.

Plain means: no functions of its own, one name for the core domain, no initializers among the inputs, a name
for every node, and nothing that only describes (documentation, traces of the exporter, stated shapes of inner
tensors). Refused are operators of domains that onnxruntime does not have everywhere, operators that draw
random numbers, and whatever ``onnx.checker`` finds wrong.

Functions call functions, so a file of a few kilobytes can stand for billions of nodes. Their number is
counted before anything is inlined or inferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from converters.graphs.naming import name_nodes
from converters.graphs.versions import OPSET, all_graphs, lowest_ir_version, opset_of
from converters.sources.onnx_batch import input_tensors
from fleet.protocol.errors import InvalidModel, UnsupportedOperator

if TYPE_CHECKING:
    import onnx

MAX_NODES = 200_000
MAX_FUNCTION_DEPTH = 32
DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft"})
"""What every build of onnxruntime for the processor has."""

_BOUND_TO_A_MACHINE = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc", "com.microsoft.dml"})
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def plain_model(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a model in the plain form, checked.

    Args:
        model: As it was read, with all weights in it; changed.
        name: What to call it in messages.

    Raises:
        InvalidModel: It is not valid ONNX, has inputs that are no batches, or draws random numbers.
        UnsupportedOperator: A node is of a domain that devices do not have.
    """
    from onnx import checker, inliner

    _check_size(model, name)
    model.ir_version = lowest_ir_version(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    _check_known(model, name)
    input_tensors(model, name)  # says more of what is wrong with an input than the checker does
    try:
        _infer_missing_outputs(model)
        checker.check_model(model, full_check=True)
        plain = inliner.inline_local_functions(model, True)
    except Exception as error:  # errors of the C++ library have no root of their own
        raise InvalidModel(
            f"{name} is not valid ONNX: {_first_line(error)}", remedy="Export the model again."
        ) from error
    _name_core_domain(plain)
    for graph in all_graphs(plain.graph):
        for node in graph.node:
            _check_node(node, name)
    _drop_descriptions(plain)
    name_nodes(plain)
    return plain


def _check_known(model: onnx.ModelProto, name: str) -> None:
    """Check that ONNX has the operators of its core: the checker names an unknown one, but not its node.

    Raises:
        UnsupportedOperator: It has not; the message names the first node.
    """
    from onnx import defs

    own = {(function.domain, function.name) for function in model.functions}
    known = {schema.name for schema in defs.get_all_schemas() if not schema.domain}
    for graph in all_graphs(model.graph):
        for node in graph.node:
            core = node.domain in {"", "ai.onnx"} and (node.domain, node.op_type) not in own
            if core and node.op_type not in known:
                raise UnsupportedOperator(
                    f"ONNX has no such operator as that of {label(node)} in {name}.",
                    remedy="Export the model with operators of ONNX, or with the function that defines it.",
                )


def label(node: onnx.NodeProto) -> str:
    """Return what to call a node in messages; in a damaged file its words may be bytes that are no text."""
    title = node.name or next(iter(node.output), "")
    return f"node {title!r:.80} ({f'{node.domain}.' if node.domain else ''}{node.op_type!s:.80})"


def _check_size(model: onnx.ModelProto, name: str) -> None:
    """Count the nodes that a model has when all its functions are written out."""
    bodies = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        if depth > MAX_FUNCTION_DEPTH:
            raise InvalidModel(
                f"{name} has functions that call each other more than {MAX_FUNCTION_DEPTH} deep, or for ever."
            )
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            if key in bodies and key not in sizes:
                sizes[key] = size(bodies[key].node, depth + 1)
            total += sizes.get(key, 1)
            for attribute in node.attribute:
                total += sum(size(graph.node, depth) for graph in (attribute.g, *attribute.graphs))
        return total

    count = size(model.graph.node, 0)
    if count > MAX_NODES:
        raise InvalidModel(f"{name} has {count} nodes; {MAX_NODES} are allowed.")


def _check_node(node: onnx.NodeProto, name: str) -> None:
    if node.domain in _BOUND_TO_A_MACHINE or node.op_type == "EPContext":
        raise UnsupportedOperator(
            f"{name}: {label(node)} was made by onnxruntime for the machine that optimized the model; another"
            " one cannot run it.",
            remedy="Give the model as it was before optimizing, or save it at level ORT_ENABLE_EXTENDED.",
        )
    if node.domain not in DOMAINS:
        raise UnsupportedOperator(
            f"{name}: {label(node)} is of domain {node.domain!r:.80}, which onnxruntime does not have.",
            remedy="Export the model with standard operators, or with the domain's functions in the file.",
        )
    training = node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]
    if node.op_type in _RANDOM and not node.domain:
        raise InvalidModel(
            f"{name}: {label(node)} draws random numbers, so no device could be held to an answer.",
            remedy="Export the part without chance, such as the mean of a variational autoencoder.",
        )
    if training or any(a.name == "training_mode" and a.i for a in node.attribute):
        raise InvalidModel(
            f"{name}: {label(node)} is in training mode.", remedy="Export the model in evaluation mode."
        )


def _name_core_domain(model: onnx.ModelProto) -> None:
    """Write the core domain as the empty text, once; add it where only other domains are imported."""
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if node.domain == "ai.onnx":
                node.domain = ""
    versions = {entry.domain: entry.version for entry in model.opset_import if entry.domain != "ai.onnx"}
    versions[""] = opset_of(model) or OPSET
    used = {node.domain for graph in all_graphs(model.graph) for node in graph.node} | {""}
    del model.opset_import[:]
    for domain in sorted(used):
        model.opset_import.add(domain=domain, version=versions.get(domain, 1))


def _infer_missing_outputs(model: onnx.ModelProto) -> None:
    """State the outputs' shapes where the exporter did not: valid ONNX has them, and not every exporter."""
    from onnx import shape_inference

    if any(not value.type.tensor_type.HasField("shape") for value in model.graph.output):
        inferred = shape_inference.infer_shapes(model)
        del model.graph.output[:]
        model.graph.output.extend(inferred.graph.output)


def _drop_descriptions(model: onnx.ModelProto) -> None:
    """Remove what has no part in any answer, and may tell of the machine that wrote the file."""
    for field in (
        "producer_name",
        "producer_version",
        "domain",
        "model_version",
        "doc_string",
        "metadata_props",
    ):
        model.ClearField(field)
    model.ClearField("training_info")
    for graph in all_graphs(model.graph):
        for name in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
            graph.ClearField(name)
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.ClearField("doc_string")
            value.ClearField("metadata_props")
        for node in graph.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
            for attribute in node.attribute:
                attribute.ClearField("doc_string")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:500]
