"""Rewrites of ONNX graphs: the same answers in a form that quantizers and other formats can work with.

=========================  ==================================================================================
`store_constants`          Constant nodes become initializers: quantizers look for weights only there
`fold_normalization`       Conv → BatchNormalization becomes one Conv (Ioffe and Szegedy 2015, sec. 3.1)
`fold_gemm_factors`        Gemm's factors α and β go into its constants (onnxruntime's quantizer forgets β),
                           and a bias (1, N) becomes (N,), which per-channel scales need
`join_biases`              MatMul and Add become Gemm: onnxruntime fuses them itself, but around the pairs,
                           and then computes in float with weights that it unpacks each time
`split_gemms`              Gemm becomes MatMul and Add: 4-bit quantization only knows MatMul
`drop_unused_constants`    what no node takes any more goes
=========================  ==================================================================================

Each changes the graph that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.graphs.onnx_graph import (
    add_constant,
    attribute,
    consumers,
    copied,
    initializers,
    producers,
    set_nodes,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto


def store_constants(model: ModelProto) -> None:
    """Turn Constant nodes that hold tensors into initializers."""
    constants = [node for node in model.graph.node if node.op_type == "Constant" and not node.domain]
    for node in constants:
        value = attribute(node, "value", None)
        if value is None:  # single numbers and text: no weights
            continue
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        model.graph.node.remove(node)


def fold_normalization(model: ModelProto) -> None:
    """Fold each BatchNormalization into the convolution before it, where nothing else takes that output.

    With scale γ, shift β, mean μ and variance σ² of an output channel, its weights become w·γ/√(σ² + ε) and
    its bias (b - μ)·γ/√(σ² + ε) + β.
    """
    graph = model.graph
    constants, made_by, used_by = initializers(graph), producers(graph), consumers(graph)
    outputs = {value.name for value in graph.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = made_by.get(norm.input[0])
        if (
            conv is None
            or conv.op_type != "Conv"
            or len(used_by[norm.input[0]]) > 1
            or norm.input[0] in outputs
            or len([name for name in norm.output if name]) > 1
            or not {*filter(None, conv.input[1:]), *norm.input[1:]} <= constants.keys()
        ):
            continue
        _fold(graph, conv, norm, constants)


def fold_gemm_factors(model: ModelProto) -> None:
    """Move the factors of each Gemm, α·A'·B' + β·C, into B and C where these are constant; flatten C."""
    constants = initializers(model.graph)
    for node in model.graph.node:
        if node.op_type != "Gemm":
            continue
        _scale_constant(model.graph, node, 1, "alpha", constants)
        if len(node.input) > 2 and node.input[2]:
            _scale_constant(model.graph, node, 2, "beta", constants)
    drop_unused_constants(model)


def join_biases(model: ModelProto) -> None:
    """Turn each MatMul of a matrix and constant weights, and the Add of a constant bias, into one Gemm."""
    from onnx import shape_inference

    graph = model.graph
    constants, used_by = initializers(graph), consumers(graph)
    outputs = {value.name for value in graph.output}
    inferred = shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in [*inferred.input, *inferred.value_info]
        if value.type.tensor_type.HasField("shape")
    }
    for node in [node for node in graph.node if node.op_type == "MatMul" and not node.domain]:
        weights = constants.get(node.input[1])
        users = used_by.get(node.output[0], [])
        if (
            weights is None
            or len(weights.dims) != 2
            or ranks.get(node.input[0]) != 2
            or len(users) != 1
            or users[0].op_type != "Add"
            or node.output[0] in outputs
        ):
            continue
        add = users[0]
        bias = next((constants[name] for name in add.input if name in constants), None)
        if bias is None or list(bias.dims) not in ([weights.dims[1]], [1, weights.dims[1]]):
            continue
        node.op_type = "Gemm"
        node.input.append(bias.name)
        node.output[0] = add.output[0]
        graph.node.remove(add)


def split_gemms(model: ModelProto) -> None:
    """Turn each Gemm with constant weights into MatMul, which keeps its name, and Add."""
    fold_gemm_factors(model)
    graph = model.graph
    constants = initializers(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        weighted = node.op_type == "Gemm" and node.input[1] in constants
        nodes.extend(_split(graph, node, constants) if weighted else [node])
    set_nodes(graph, nodes)
    drop_unused_constants(model)


def drop_unused_constants(model: ModelProto) -> None:
    """Drop the initializers that no node takes."""
    used = {*consumers(model.graph), *(value.name for value in model.graph.output)}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    if len(kept) < len(model.graph.initializer):
        copies = [copied(tensor) for tensor in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(copies)


def _fold(graph: GraphProto, conv: NodeProto, norm: NodeProto, constants: dict[str, TensorProto]) -> None:
    from onnx import numpy_helper

    def values(names: Iterable[str]) -> list[NDArray[np.float64]]:
        return [numpy_helper.to_array(constants[name]).astype(np.float64) for name in names if name]

    weights, *bias = values(conv.input[1:])
    scale, shift, mean, variance = values(norm.input[1:])
    factor = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    folded = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    moved = ((bias[0] if bias else 0.0) - mean) * factor + shift
    conv.input[1:] = [
        add_constant(graph, conv.input[1] + "_folded", folded.astype(np.float32), constants),
        add_constant(graph, norm.input[2] + "_folded", moved.astype(np.float32), constants),
    ]
    conv.output[0] = norm.output[0]
    graph.node.remove(norm)
    unused = {norm.input[i] for i in range(1, 5)} - consumers(graph).keys()
    for tensor in [t for t in graph.initializer if t.name in unused]:
        graph.initializer.remove(tensor)


def _scale_constant(
    graph: GraphProto, node: NodeProto, index: int, factor: str, constants: dict[str, TensorProto]
) -> None:
    """Multiply a constant that a Gemm takes by one of its factors, and drop that; flatten a bias."""
    from onnx import numpy_helper

    tensor = constants.get(node.input[index])
    if tensor is None:
        return
    value, amount = numpy_helper.to_array(tensor), attribute(node, factor, 1.0)
    flat = index == 2 and value.ndim == 2 and value.shape[0] == 1
    if amount == 1.0 and not flat:
        return
    scaled = (value * np.asarray(amount, dtype=value.dtype)).reshape(-1 if flat else value.shape)
    node.input[index] = add_constant(
        graph, f"{node.name}_{'bias' if index == 2 else 'weights'}", scaled, constants
    )
    kept = [copied(each) for each in node.attribute if each.name != factor]
    del node.attribute[:]
    node.attribute.extend(kept)


def _split(graph: GraphProto, node: NodeProto, constants: dict[str, TensorProto]) -> list[NodeProto]:
    from onnx import helper, numpy_helper

    left, right, output = node.input[0], node.input[1], node.output[0]
    before, after = [], []
    if attribute(node, "transB", 0):
        transposed = np.ascontiguousarray(numpy_helper.to_array(constants[right]).T)
        right = add_constant(graph, f"{node.name}_transposed", transposed, constants)
    if attribute(node, "transA", 0):
        left, name = f"{node.name}_left", f"{node.name}_transpose"
        before = [helper.make_node("Transpose", [node.input[0]], [left], name, perm=[1, 0])]
    if len(node.input) > 2 and node.input[2]:
        added, output = node.input[2], f"{node.name}_product"
        if (beta := attribute(node, "beta", 1.0)) != 1.0:  # what is added is no constant
            factor = add_constant(graph, f"{node.name}_beta", np.asarray(beta, dtype=np.float32), constants)
            added = f"{node.name}_scaled"
            before.append(helper.make_node("Mul", [node.input[2], factor], [added], f"{node.name}_scale"))
        after = [helper.make_node("Add", [output, added], [node.output[0]], f"{node.name}_add")]
    return [*before, helper.make_node("MatMul", [left, right], [output], node.name), *after]
