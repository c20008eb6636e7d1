"""Peak memory: what weights and live tensors of a model take while one sample is answered.

A runtime computes the nodes one after another. A tensor lives from the node that gives it to the last node
that takes it. The estimate is the weights plus the greatest sum of the sizes of live tensors over all nodes::

    node        1     2     3     4              live at node 3: b, c (taken), d (given)
    a (input)  ───
    b          ━━━━━━━━━━━━━━━                   peak = weights + max over nodes of Σ live sizes
    c                ━━━━━━━
    d                      ━━━━━━━

No allocator does better without computing in place, and greedy ones come within some percent of it (Pisarchyk
and Lee, "Efficient memory management for deep neural net inference", 2020). Workspaces of kernels, copies of
weights in a kernel's own layout and the runtime itself come on top; work done in place goes off. The estimate
depends on nothing but the model, so the same model has the same number everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from converters.graphs.onnx_graph import attribute, consumers, initializers, parsed, producers, taken
from converters.graphs.ort_format import bindings, ort_graph, ort_nodes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

Step = tuple[list[str], list[str]]
"""Of one node: the tensors that it takes and those that it gives."""


def peak_memory_bytes(
    steps: Iterable[Step],
    sizes_bytes: Mapping[str, int],
    *,
    inputs: Iterable[str],
    outputs: Iterable[str],
    weights_bytes: int,
) -> int:
    """Return weights and the greatest sum of live tensors over a schedule.

    Args:
        steps: The nodes in the order of execution.
        sizes_bytes: Of each tensor that takes part; those without a size, such as weights, count nothing.
        inputs: The model's: they are live from the start to their last use.
        outputs: The model's: they are live to the end.
        weights_bytes: Of all weights together.
    """
    schedule = list(steps)
    born = dict.fromkeys(inputs, 0)
    dies = dict(born)
    for index, (takes, gives) in enumerate(schedule):
        dies.update(dict.fromkeys(takes, index))
        for name in gives:
            born.setdefault(name, index)
            dies[name] = index
    dies.update(dict.fromkeys(outputs, len(schedule) - 1))
    change = [0] * (len(schedule) + 1)
    for name, index in born.items():
        change[index] += sizes_bytes.get(name, 0)
        change[dies[name] + 1] -= sizes_bytes.get(name, 0)
    live = peak = 0
    for difference in change:
        live += difference
        peak = max(peak, live)
    return weights_bytes + peak


def onnx_peak_memory_bytes(model: bytes) -> int:
    """Return the estimate for an ONNX model.

    Quantize-dequantize pairs count as the runtime fuses them: a node between them takes and gives integers. A
    tensor whose size ONNX cannot infer counts as large as the largest that its node takes.

    Raises:
        ConversionFailed: It is not one.
    """
    sized = _with_shapes(parsed(model))
    graph = sized.graph
    weights = initializers(graph)
    same = _fused(graph)
    steps = [
        ([same.get(name, name) for name in taken(node)], [same.get(name, name) for name in node.output])
        for node in graph.node
    ]
    sizes = {value.name: size for value in _values(graph) if (size := _size_bytes(value)) is not None}
    for node in graph.node:
        # Outside the core: ONNX does not know it.
        if node.op_type == "MatMulNBits" and node.input[0] in sizes:
            size = sizes[node.input[0]] // attribute(node, "K", 1) * attribute(node, "N", 1)
            sizes.setdefault(node.output[0], size)
    constant = {name for name, origin in same.items() if origin in weights} | weights.keys()
    return peak_memory_bytes(
        steps,
        _completed(steps, {name: size for name, size in sizes.items() if name not in constant}, constant),
        inputs=[value.name for value in graph.input if value.name not in constant],
        outputs=[same.get(value.name, value.name) for value in graph.output],
        weights_bytes=sum(tensor.ByteSize() for tensor in weights.values())
        + sum(each.ByteSize() for node in graph.node for each in node.attribute),
    )


def ort_peak_memory_bytes(model: bytes) -> int:
    """Return the estimate for a model in the ORT format, which holds the shapes that onnxruntime inferred.

    Raises:
        ConversionFailed: It is not one.
    """
    graph = ort_graph(model)
    tensors = [graph.Initializers(i) for i in range(graph.InitializersLength())]
    weights = {tensor.Name().decode() for tensor in tensors}
    sizes = {}
    for value in (graph.NodeArgs(i) for i in range(graph.NodeArgsLength())):
        size = _ort_size_bytes(value)
        if size is not None:
            sizes[value.Name().decode()] = size
    steps = [
        (
            [node.Inputs(i).decode() for i in range(node.InputsLength())],
            [node.Outputs(i).decode() for i in range(node.OutputsLength())],
        )
        for node in ort_nodes(graph)
    ]
    lists = (node.Attributes(i) for node in ort_nodes(graph) for i in range(node.AttributesLength()))
    return peak_memory_bytes(
        steps,
        _completed(steps, {name: size for name, size in sizes.items() if name not in weights}, weights),
        inputs=[graph.Inputs(i).decode() for i in range(graph.InputsLength())],
        outputs=[graph.Outputs(i).decode() for i in range(graph.OutputsLength())],
        weights_bytes=sum(0 if tensor.RawDataIsNone() else tensor.RawDataLength() for tensor in tensors)
        + sum(4 * a.FloatsLength() + 8 * a.IntsLength() for a in lists),
    )


def _with_shapes(model: ModelProto) -> ModelProto:
    """Return the model with all shapes that follow from inputs of one sample."""
    from onnx import shape_inference

    for value in model.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_value = 1
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return shape_inference.infer_shapes(model, data_prop=True)


def _values(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from graph.input
    yield from graph.value_info
    yield from graph.output


def _size_bytes(value: ValueInfoProto) -> int | None:
    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    sizes = (max(1, int(dimension.dim_value)) for dimension in tensor.shape.dim)
    return _bytes_each(tensor.elem_type) * math.prod(sizes)


def _ort_size_bytes(value: Any) -> int | None:
    kind = value.Type()
    if kind is None or kind.ValueType() != bindings("TypeInfoValue").TypeInfoValue.tensor_type:
        return None
    tensor = bindings("TensorTypeAndShape").TensorTypeAndShape()
    tensor.Init(kind.Value().Bytes, kind.Value().Pos)
    if tensor.Shape() is None:
        return None
    dimensions = (tensor.Shape().Dim(i).Value() for i in range(tensor.Shape().DimLength()))
    sizes = (1 if dimension is None else max(1, dimension.DimValue()) for dimension in dimensions)
    return _bytes_each(tensor.ElemType()) * math.prod(sizes)


def _bytes_each(element_type: int) -> int:
    """Return the size of one element; for text, that of its reference."""
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(element_type).itemsize)


def _fused(graph: GraphProto) -> dict[str, str]:
    """Return, for tensors that exist only between nodes that the runtime fuses, what takes their place."""
    constants, made_by, used_by = initializers(graph), producers(graph), consumers(graph)
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        maker = made_by.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if maker is not None and len(used_by[node.input[0]]) == 1:
            varying = [name for name in maker.input if name and name not in constants]
            if all(name in same for name in varying):
                same[node.input[0]] = node.output[0]
    return same


def _completed(steps: list[Step], sizes: dict[str, int], constant: Iterable[str]) -> dict[str, int]:
    """Return the sizes with those of the tensors that have none: the largest that their node takes."""
    known = {**sizes, **dict.fromkeys(constant, 0)}
    for takes, gives in steps:
        largest = max((known.get(name, 0) for name in takes), default=0)
        for name in gives:
            known.setdefault(name, largest)
    return known
