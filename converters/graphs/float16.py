"""From float32 to float16 in an ONNX graph: which nodes may, and where casts go.

onnxruntime's and onnxconverter-common's ``convert_float_to_float16`` clamp constants beyond 65,504 without a
word, and cast the model's inputs first, so that nodes kept in float32 get what float16 has left of them. Here
a node is either float32 or float16, and a tensor is cast once on each border::

    input ─ Sub ─ Div ─┤ Cast ├─ Gemm ─ Relu ─ Gemm ─┤ Cast ├─ output
            float32                 float16                    float32

float16 are the products with constant weights and what follows them, as far as ONNX defines the operator for
float16. What comes before the first product stays float32: raw features span more than float16 can hold. So
do sums over many values and normalizations (`SUMMING`), which overflow inside, where no tensor shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.graphs.onnx_graph import (
    add_constant,
    bodies,
    float_tensors,
    initializers,
    set_nodes,
    taken,
)
from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, defs

GREATEST_FLOAT16 = 65504.0
"""Greatest finite float16."""

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
SUMMING = frozenset(
    {"BatchNormalization", "CumSum", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
    | {"LpNormalization", "MeanVarianceNormalization", "Pow", "RMSNormalization", "ReduceL1", "ReduceL2"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)


class Half(NamedTuple):
    """What one node has in float16.

    Attributes:
        inputs: Indices of the inputs that it takes in float16.
        outputs: Indices of the outputs that it gives in float16.
    """

    inputs: frozenset[int]
    outputs: frozenset[int]


def halves(model: ModelProto) -> dict[str, Half]:
    """Return, by name, the nodes that are to be float16.

    Args:
        model: A graph whose nodes have names and whose constants are initializers.
    """
    from onnx import shape_inference

    floats = float_tensors(shape_inference.infer_shapes(model).graph)
    constants = initializers(model.graph)
    versions = {imported.domain: imported.version for imported in model.opset_import}
    made: set[str] = set()
    found = {}
    for node in model.graph.node:  # in topological order
        weighted = node.op_type in PRODUCTS and any(name in constants for name in node.input[:2])
        if not weighted and made.isdisjoint(node.input):
            continue
        half = _half(node, floats, versions.get("", 1))
        if half.inputs:
            found[node.name] = half
            made.update(node.output[index] for index in half.outputs)
    return found


def make_float16(model: ModelProto, chosen: dict[str, Half]) -> None:
    """Turn the chosen nodes, their tensors and constants into float16, with casts on the borders.

    Args:
        model: The graph, changed in place.
        chosen: By name, from `halves`.

    Raises:
        ConversionFailed: A constant is greater than float16 can hold; the message names the node and the
        value.
    """
    graph = model.graph
    constants = initializers(graph)
    needed = {value.name for value in graph.output}
    for node in graph.node:
        inputs = chosen[node.name].inputs if node.name in chosen else frozenset()
        needed.update(name for name in taken(node) if name not in {node.input[i] for i in inputs})
    names: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        half = chosen.get(node.name)
        if half is None:
            nodes.append(node)
            continue
        for index in sorted(half.inputs):
            name = node.input[index]
            if name in constants and name not in names:
                value = _constant(node, index, constants[name])
                names[name] = add_constant(graph, f"{name}_float16", value, constants)
            elif name not in names:
                names[name] = f"{name}_float16"
                nodes.append(_cast(name, names[name], to_half=True))
            node.input[index] = names[name]
        nodes.append(node)
        for index in sorted(half.outputs):
            name = node.output[index]
            names[name] = node.output[index] = f"{name}_float16"
            if name in needed:
                nodes.append(_cast(names[name], name, to_half=False))
    set_nodes(graph, nodes)
    del graph.value_info[:]


def _half(node: NodeProto, floats: set[str], version: int) -> Half:
    """Return what of a node can be float16; nothing where ONNX does not define its operator for it."""
    from onnx import defs

    nothing = Half(frozenset(), frozenset())
    if node.domain or node.op_type in SUMMING or any(bodies(node)):
        return nothing
    schema = defs.get_schema(node.op_type, version)
    allowed = {c.type_param_str: "tensor(float16)" in c.allowed_type_strs for c in schema.type_constraints}

    def kinds(names: list[str], formal: list[defs.OpSchema.FormalParameter]) -> dict[int, str]:
        """Return the type parameter of each float tensor; a variadic parameter is the last one."""
        known = {i: formal[min(i, len(formal) - 1)] for i, name in enumerate(names) if name in floats}
        return {i: parameter.type_str for i, parameter in known.items() if parameter.type_str in allowed}

    inputs = kinds(list(node.input), list(schema.inputs))
    outputs = kinds(list(node.output), list(schema.outputs))
    if not all(allowed[kind] for kind in inputs.values()):
        return nothing
    shared = frozenset(index for index, kind in outputs.items() if kind in inputs.values())
    return Half(frozenset(inputs), shared)


def _constant(node: NodeProto, index: int, tensor: TensorProto) -> NDArray[np.float16]:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    finite = values[np.isfinite(values)]
    if node.op_type == "Clip":  # a bound that float16 does not reach bounds nothing
        return np.asarray(np.clip(values, -GREATEST_FLOAT16, GREATEST_FLOAT16), dtype=np.float16)
    greatest = finite.flat[np.abs(finite).argmax()] if finite.size else 0.0
    if abs(greatest) > GREATEST_FLOAT16:
        raise ConversionFailed(
            f"Node {node.name!r} ({node.op_type}) has the constant {greatest:.6g} in input {index};"
            f" float16 ends at {GREATEST_FLOAT16:.0f}.",
            remedy="Scale the layer down, or pack the model as fp32.",
        )
    return np.asarray(values, dtype=np.float16)


def _cast(name: str, into: str, *, to_half: bool) -> NodeProto:
    from onnx import TensorProto, helper

    to = TensorProto.FLOAT16 if to_half else TensorProto.FLOAT
    return helper.make_node("Cast", [name], [into], f"{into}_cast", to=to)
