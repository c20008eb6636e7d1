"""Walk an ONNX graph once, with a number put in for the batch: fold what is constant, find every shape.

A node whose inputs are all known is computed by ONNX's reference implementation; for any other node ONNX's
own inference gives the output shapes. Nothing stays unknown, or the graph is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.tflite.node import Fact, Node, read_node
from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    import onnx

MAX_FOLDED_ELEMENTS = 2**26
MAX_INFERENCE_ELEMENTS = 1024
"""Constants up to this size are shown to shape inference; what it looks at are shapes, axes and pads."""

NOT_DETERMINISTIC = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def walk(protos: Sequence[onnx.NodeProto], opset: int, given: dict[str, Fact]) -> dict[str, Fact]:
    """Return what is known of every tensor.

    Args:
        protos: The nodes, each after those that it depends on.
        opset: Version of their operator set.
        given: The inputs, with a number for the batch, and the initializers.

    Raises:
        UnsupportedOperator: A node is of another domain, random, or has shapes that only data can tell.
        ConversionFailed: Shapes do not fit each other.
    """
    facts = dict(given)
    for proto in protos:
        facts.update(_outputs(proto, opset, facts))
    return facts


def _outputs(proto: onnx.NodeProto, opset: int, facts: dict[str, Fact]) -> dict[str, Fact]:
    """Return what is known of a node's outputs: their values, or else their shapes."""
    from onnx import defs

    node = read_node(proto, opset)
    if proto.domain not in ("", "ai.onnx"):
        raise node.unsupported(f"{proto.domain}.{proto.op_type} is not a core operator")
    if proto.op_type in NOT_DETERMINISTIC | CONTROL_FLOW:
        raise node.unsupported("there is no such operator that gives the same answers on every device")
    try:
        schema = defs.get_schema(proto.op_type, opset, "")
    except defs.SchemaError as error:
        raise node.unsupported(f"operator set {opset} has no such operator") from error
    known = {name: facts[name] for name in proto.input if name}
    if proto.op_type == "Shape":
        start, end = node.attribute("start", 0), node.attribute("end", None)
        value = np.array(known[proto.input[0]].shape[start:end], dtype=np.int64)
        return {proto.output[0]: Fact(value.shape, value.dtype, value)}
    shapes = _inferred(node, proto, schema, known, opset)
    if any(fact.value is None for fact in known.values()) or proto.op_type == "Dropout":
        return shapes
    if sum(math.prod(fact.shape) for fact in shapes.values()) > MAX_FOLDED_ELEMENTS:
        raise node.unsupported(f"it computes a constant of more than {MAX_FOLDED_ELEMENTS} elements")
    return _folded(node, proto, known, opset)


def _inferred(
    node: Node, proto: onnx.NodeProto, schema: Any, known: dict[str, Fact], opset: int
) -> dict[str, Fact]:
    from onnx import helper, numpy_helper, shape_inference

    types = {
        name: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(fact.dtype), fact.shape)
        for name, fact in known.items()
    }
    data = {
        name: numpy_helper.from_array(fact.value, name)
        for name, fact in known.items()
        if fact.value is not None and fact.value.size <= MAX_INFERENCE_ELEMENTS
    }
    try:
        inferred = shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=[helper.make_opsetid("", opset)]
        )
    except (shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ConversionFailed(
            f"The shapes at node {node.name!r:.80} ({node.operator}) do not fit: {error}."
        ) from error
    return {name: _fact(node, inferred.get(name)) for name in proto.output if name}


def _fact(node: Node, inferred: onnx.TypeProto | None) -> Fact:
    from onnx import helper

    if inferred is None or not inferred.HasField("tensor_type"):
        raise node.unsupported("its result is not a tensor of known shape")
    tensor = inferred.tensor_type
    if not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise node.unsupported("the shape of its result depends on data")
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    return Fact(shape, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def _folded(node: Node, proto: onnx.NodeProto, known: dict[str, Fact], opset: int) -> dict[str, Fact]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    graph = helper.make_graph(
        [proto],
        "fold",
        [helper.make_value_info(name, helper.make_tensor_type_proto(0, None)) for name in known],
        [
            helper.make_value_info(name, helper.make_tensor_type_proto(0, None))
            for name in proto.output
            if name
        ],
    )
    single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        values = ReferenceEvaluator(single).run(None, {name: fact.value for name, fact in known.items()})
    except Exception as error:  # the reference implementation raises whatever numpy and Python raise
        raise node.unsupported(f"its constant value cannot be computed: {error}") from error
    arrays = [np.asarray(value) for value in values]
    names = [name for name in proto.output if name]
    return {name: Fact(value.shape, value.dtype, value) for name, value in zip(names, arrays, strict=True)}
