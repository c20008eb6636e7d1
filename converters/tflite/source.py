"""Read an ONNX graph: check it, fold what is constant, and find every shape.

The walk goes once through the nodes in their order, with a number put in for the batch. A node whose inputs
are all known is computed by ONNX's reference implementation; for any other node ONNX's own inference gives
the output shapes. Nothing stays unknown, or the graph is refused.

Where an input has a symbolic batch the walk is done for N = 1 and for N = 2. What is the same in both does
not depend on the batch, a dimension that doubles grows with it, and anything else is refused. So the usual
``Shape → Gather → Concat → Reshape`` chains of exporters vanish without special cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.tflite.graph import Shape
from fleet.protocol.errors import ConversionFailed, UnsupportedOperator

if TYPE_CHECKING:
    import onnx

OPSETS = range(13, 22)
MAX_MODEL_SIZE_BYTES = 2**31 - 1
MAX_FOLDED_ELEMENTS = 2**26
MAX_INFERENCE_ELEMENTS = 1024
"""Constants up to this size are shown to shape inference; what it looks at are shapes, axes and pads."""

NOT_DETERMINISTIC = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
WAY_OUT = "Keep this model in ONNX, or build it from operators that the TFLite reference page lists."


@dataclass(frozen=True, eq=False)
class Fact:
    """What is known of an ONNX tensor.

    Attributes:
        shape: Its dimensions; a negative one grows with the batch.
        dtype: Element type.
        value: Its contents if they depend neither on any input nor on N, else None.
        from_batch: The contents are known for each N but differ: such a tensor is never written.
    """

    shape: Shape
    dtype: np.dtype[Any]
    value: NDArray[Any] | None = None
    from_batch: bool = False

    @property
    def computed(self) -> bool:
        """Whether the device has to compute it."""
        return self.value is None and not self.from_batch


@dataclass(eq=False)
class Node:
    """One ONNX node that has to be emitted.

    Attributes:
        operator: ONNX's name of the operator.
        name: The node's name, or its first output where it has none.
        inputs: Names of tensors; empty for an input that is left out.
        outputs: Names of tensors; empty for an output that nobody wants.
        opset: Version of the operator set that gives the operator its meaning.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    attributes: dict[str, Any]
    read: set[str] = field(default_factory=set)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value; what is never asked for is refused by `unread`."""
        self.read.add(name)
        return self.attributes.get(name, default)

    def unread(self) -> list[str]:
        """Return the attributes whose meaning nobody looked at."""
        return sorted(self.attributes.keys() - self.read)

    def has(self, index: int) -> bool:
        """Return whether an optional input is there."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def unsupported(self, why: str) -> UnsupportedOperator:
        """Return the error that says why this node has no counterpart."""
        return UnsupportedOperator(
            f"Node {self.name!r:.80} ({self.operator}) cannot be written as TFLite: {why}.", remedy=WAY_OUT
        )


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
    open_batch = [value.name for value in inputs if _has_batch(value)]
    outputs = tuple(value.name for value in model.graph.output)
    protos = _ancestors(model.graph.node, set(outputs))
    facts = _walk(protos, opset, _given(inputs, batch=1) | initializers)
    if open_batch:
        at_two = _walk(protos, opset, _given(inputs, batch=2) | initializers)
        facts = {name: _joined(name, fact, at_two[name]) for name, fact in facts.items()}
    nodes = [_node(proto, opset) for proto in _needed(protos, outputs, facts)]
    return Source(tuple(value.name for value in inputs), outputs, tuple(nodes), facts)


def _checked_opset(model: onnx.ModelProto) -> int:
    from onnx import TensorProto, checker

    size_bytes: int = model.ByteSize()
    if size_bytes > MAX_MODEL_SIZE_BYTES:
        raise ConversionFailed(
            f"The model has {size_bytes} bytes; a TFLite file holds {MAX_MODEL_SIZE_BYTES} at most."
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
    shape = value.type.tensor_type.shape
    if not value.type.tensor_type.HasField("shape"):
        raise ConversionFailed(f"Input {value.name!r:.80} has no shape.", remedy="Export it with one.")
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


def _walk(protos: Sequence[onnx.NodeProto], opset: int, given: dict[str, Fact]) -> dict[str, Fact]:
    facts = dict(given)
    for proto in protos:
        facts.update(_outputs(proto, opset, facts))
    return facts


def _outputs(proto: onnx.NodeProto, opset: int, facts: dict[str, Fact]) -> dict[str, Fact]:
    """Return what is known of a node's outputs: their values, or else their shapes."""
    from onnx import defs

    node = _node(proto, opset)
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


def _joined(name: str, one: Fact, two: Fact) -> Fact:
    """Return what holds for every batch, from what holds for N = 1 and for N = 2."""
    if len(one.shape) != len(two.shape):
        raise ConversionFailed(
            f"Tensor {name!r:.80} has another number of dimensions for another batch.",
            remedy="Name the axes of Squeeze in the export.",
        )
    shape = []
    for at_one, at_two in zip(one.shape, two.shape, strict=True):
        if at_two not in (at_one, 2 * at_one):
            raise ConversionFailed(f"The shape of tensor {name!r:.80} does not grow evenly with the batch.")
        shape.append(at_one if at_one == at_two else -at_one)
    if one.value is None or two.value is None:
        return Fact(tuple(shape), one.dtype)
    same = np.array_equal(one.value, two.value, equal_nan=one.dtype.kind == "f")
    return Fact(tuple(shape), one.dtype, one.value if same else None, from_batch=not same)


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


def _node(proto: onnx.NodeProto, opset: int) -> Node:
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    return Node(
        operator=proto.op_type,
        name=proto.name or next(iter(proto.output), ""),
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        opset=opset,
        attributes={
            name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for name, value in attributes.items()
        },
    )
