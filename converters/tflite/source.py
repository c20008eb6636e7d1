"""An ONNX graph as the emitter reads it: checked, its constants folded, every shape known.

Where an input has a symbolic batch the graph is walked (`converters.tflite.fold`) for several numbers put in
for N. What is the same for all does not depend on the batch, a dimension that is a multiple of N grows with
it, and anything else is refused. So the ``Shape → Gather → Concat → Reshape`` chains of exporters vanish
without special cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.tflite.fold import walk
from converters.tflite.inspect import MAX_SIZE_BYTES
from converters.tflite.node import Fact, Node, read_node
from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    import onnx

OPSETS = range(13, 22)
BATCHES = (1, 2, 7)
"""What is put in for N: enough that nothing which is not a multiple of N looks like one."""


@dataclass(frozen=True, eq=False)
class Source:
    """An ONNX graph, ready to be emitted.

    Attributes:
        inputs: Names of the inputs that are not constants.
        outputs: Names of the outputs.
        nodes: The nodes that depend on an input, in order.
        facts: Every tensor of the graph.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    facts: dict[str, Fact]


def read_source(model: onnx.ModelProto) -> Source:
    """Return the graph with every shape known and every constant folded.

    Raises:
        UnsupportedOperator: A node is of another domain, random, or has shapes that only data can tell.
        ConversionFailed: The model is not valid ONNX, of another operator set, too large, or has an input
            whose shape is open beyond the batch.
    """
    opset = _checked_opset(model)
    initializers = {
        name: Fact(value.shape, value.dtype, value) for name, value in _initializers(model.graph).items()
    }
    inputs = [value for value in model.graph.input if value.name not in initializers]
    open_batch = {value.type.tensor_type.shape.dim[0].dim_param for value in inputs if _has_batch(value)}
    if len(open_batch) > 1:
        raise ConversionFailed(
            f"The inputs have different batch dimensions: {', '.join(sorted(open_batch))}.",
            remedy="Give them the same name in the export, so that one batch size fits all.",
        )
    outputs = tuple(value.name for value in model.graph.output)
    protos = _ancestors(model.graph.node, set(outputs))
    walks = [
        walk(protos, opset, _given(inputs, batch=batch) | initializers)
        for batch in (BATCHES if open_batch else (1,))
    ]
    facts = {name: _joined(name, [facts[name] for facts in walks]) for name in walks[0]}
    nodes = [read_node(proto, opset) for proto in _needed(protos, outputs, facts)]
    return Source(tuple(value.name for value in inputs), outputs, tuple(nodes), facts)


def _checked_opset(model: onnx.ModelProto) -> int:
    from onnx import TensorProto, checker

    size_bytes: int = model.ByteSize()
    if size_bytes > MAX_SIZE_BYTES:
        raise ConversionFailed(
            f"The model has {size_bytes} bytes; a TFLite file holds {MAX_SIZE_BYTES} at most."
        )
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ConversionFailed(
                f"The contents of tensor {tensor.name!r:.80} are in another file.",
                remedy="Load the external data into the model first.",
            )
    try:
        checker.check_model(model)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        raise ConversionFailed(f"The model is not valid ONNX: {error}.") from error
    versions: dict[str, int] = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset not in OPSETS:
        raise ConversionFailed(
            f"The model uses operator set {opset}; {OPSETS.start} to {OPSETS.stop - 1} can be converted.",
            remedy="Bring it there with onnx.version_converter first.",
        )
    return opset


def _initializers(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    if graph.sparse_initializer:
        raise ConversionFailed("The model has sparse tensors.", remedy="Store them as dense ones first.")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _has_batch(value: onnx.ValueInfoProto) -> bool:
    """Return whether the first dimension is open; every other must be a number."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        raise ConversionFailed(
            f"Input {value.name!r:.80} is no tensor with a shape.", remedy="Export it as one."
        )
    shape = value.type.tensor_type.shape
    for axis, dimension in enumerate(shape.dim):
        if axis and dimension.dim_value < 1:
            raise ConversionFailed(
                f"Dimension {axis} of input {value.name!r:.80} is not a fixed number;"
                " only the first one, the batch, may be open.",
                remedy="Export the model with fixed sizes.",
            )
    return bool(shape.dim) and shape.dim[0].dim_value < 1


def _given(inputs: Sequence[onnx.ValueInfoProto], *, batch: int) -> dict[str, Fact]:
    from onnx import helper

    facts = {}
    for value in inputs:
        shape = tuple(dimension.dim_value or batch for dimension in value.type.tensor_type.shape.dim)
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        facts[value.name] = Fact(shape, np.dtype(dtype))
    return facts


def _joined(name: str, walked: Sequence[Fact]) -> Fact:
    """Return what holds for every batch, from what each of the walks found."""
    if len({len(fact.shape) for fact in walked}) > 1:
        raise ConversionFailed(
            f"Tensor {name!r:.80} has another number of dimensions for another batch.",
            remedy="Name the axes of Squeeze in the export.",
        )
    shape = []
    for sizes in zip(*(fact.shape for fact in walked), strict=True):
        grows = sizes == tuple(sizes[0] * batch for batch in BATCHES[: len(sizes)])
        if len(set(sizes)) > 1 and not grows:
            raise ConversionFailed(f"The shape of tensor {name!r:.80} does not grow evenly with the batch.")
        shape.append(sizes[0] if len(set(sizes)) == 1 else -sizes[0])
    first = walked[0]
    values = [fact.value for fact in walked if fact.value is not None]
    if len(values) < len(walked):
        return Fact(tuple(shape), first.dtype)
    same = all(np.array_equal(value, values[0], equal_nan=first.dtype.kind == "f") for value in values[1:])
    return Fact(tuple(shape), first.dtype, first.value if same else None, from_batch=not same)


def _needed(
    protos: Sequence[onnx.NodeProto], outputs: Sequence[str], facts: dict[str, Fact]
) -> list[onnx.NodeProto]:
    """Return the nodes that the device has to compute, in order."""
    return _ancestors(
        protos, {name for name in outputs if facts[name].computed}, lambda name: facts[name].computed
    )


def _ancestors(
    protos: Sequence[onnx.NodeProto], wanted: set[str], follow: Callable[[str], bool] = lambda _: True
) -> list[onnx.NodeProto]:
    """Return the nodes that the wanted tensors depend on, in order."""
    wanted, kept = set(wanted), []
    for proto in reversed(protos):
        if wanted.intersection(proto.output):
            wanted.update(name for name in proto.input if name and follow(name))
            kept.append(proto)
    return kept[::-1]
