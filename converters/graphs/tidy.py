"""Tidy ONNX graphs: what the first output needs and nothing else, under names that are always the same.

Exporters leave behind what devices should not carry, and names that count how often the exporter ran. So:

1. Keep the nodes on which the wanted output depends; labels and ZipMaps go.
2. Compute what depends on no input, once, here.
3. Drop nodes that give what they take: Identity, Cast to the type and Reshape to the shape that is there
   already.
4. Flatten (1, N) operands of element-wise nodes to (N,): per-channel quantization and TensorFlow Lite know
   biases with one dimension only.
5. Name nodes, tensors and constants anew, see `converters.graphs.naming`.
6. Import the operator sets in use, once, and check the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from converters.graphs.naming import name_by_kind
from converters.graphs.onnx_graph import all_nodes, bodies, copied, let_take, set_nodes, taken
from converters.graphs.versions import IR_VERSION
from fleet.protocol.errors import ConversionFailed, UnsupportedOperator
from fleet.protocol.manifest import Signature, Tensor

if TYPE_CHECKING:
    import onnx

DOMAINS = frozenset({"", "ai.onnx.ml"})
"""Operator sets that every build of ONNX Runtime has."""

MAX_FOLDED_ELEMENTS = 1 << 20
"""Constants that would become larger stay computed: a file should not grow by what one node says."""

MAX_RANK = 8
"""A list of whole numbers no longer than this may be a shape."""

_FLOAT_OPERATORS = frozenset({"SVMClassifier", "SVMRegressor"})
"""Of ``ai.onnx.ml``: their last output is float32, which onnx's shape inference does not know."""

_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div"})


def tidy(model: onnx.ModelProto, signature: Signature, output: str) -> onnx.ModelProto:
    """Return the model from the signature's inputs to its first output, tidied as this file's head says.

    Args:
        model: Has inputs of the signature's names, rank and types. It is left as it is.
        signature: Names, types and shapes of the result's inputs and first output; -1 becomes ``batch``.
        output: The tensor in ``model`` that is to be the first output.

    Raises:
        UnsupportedOperator: A node comes from a set of operators that runtimes do not have.
        ConversionFailed: The model has no such output, or the result is not valid ONNX.
    """
    from onnx import checker, helper
    from onnx.shape_inference import InferenceError

    copy = copied(model)
    graph = copy.graph
    _keep(graph, _ancestors(graph.node, output))
    _fold_constants(copy, output)
    _keep(graph, _without_passthroughs(copy, output))
    _flatten_operands(copy)
    names = {tensor.name: tensor.name for tensor in signature.inputs}
    name_by_kind(graph, {**names, output: signature.outputs[0].name})
    tidied = helper.make_model(
        helper.make_graph(
            list(graph.node),
            graph.name,
            [value_info(tensor) for tensor in signature.inputs],
            [value_info(signature.outputs[0])],
            list(graph.initializer),
        ),
        opset_imports=_imports(copy),
        ir_version=IR_VERSION,
    )
    try:
        checker.check_model(tidied, full_check=True)
    except (checker.ValidationError, InferenceError, ValueError, RuntimeError) as error:
        raise ConversionFailed(f"The exported model is not valid ONNX: {error}.") from error
    return tidied


def value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    """Return the declaration of a graph's input or output; -1 becomes the symbolic size ``batch``."""
    import numpy as np
    from onnx import TensorProto, helper

    text = tensor.dtype == "str"
    kind = TensorProto.STRING if text else helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    sizes = ["batch" if size == -1 else size for size in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, kind, sizes)


def _keep(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the graph's nodes by these, which may be some of its own; drop constants that none takes."""
    set_nodes(graph, nodes)
    used = {name for node in graph.node for name in taken(node)}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _ancestors(nodes: Iterable[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """Return the nodes on which the output depends, in the given (topological) order."""
    wanted, kept = {output}, []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            wanted.update(taken(node))
            kept.append(node)
    if not kept:
        raise ConversionFailed(f"The model computes no output {output!r}.")
    return kept[::-1]


def _fold_constants(model: onnx.ModelProto, output: str) -> None:
    """Compute what depends on constants alone, other than the output itself."""
    import numpy as np
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    rest = []
    for node in graph.node:
        foreign = node.domain or any(bodies(node)) or output in node.output
        if foreign or not known.keys() >= set(node.input):
            rest.append(node)
            continue
        feeds = {name: numpy_helper.to_array(known[name]) for name in node.input}
        values = [np.asarray(value) for value in ReferenceEvaluator(node).run(None, feeds)]
        if any(value.size > MAX_FOLDED_ELEMENTS for value in values):
            rest.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            known[name] = numpy_helper.from_array(value, name)
    del graph.initializer[:]
    graph.initializer.extend(known.values())
    _keep(graph, rest)


def _without_passthroughs(model: onnx.ModelProto, output: str) -> list[onnx.NodeProto]:
    """Return the nodes without those that give what they take; one that gives the graph's output stays."""
    known = _known(model)
    source: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        let_take(node, source)
        if _is_passthrough(node, known):
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    final = source.get(output, output)
    givers = [node for node in kept if final in node.output]
    if not givers:  # an input is the output: something must give it
        return [*kept, next(node for node in model.graph.node if output in node.output)]
    for node in kept:  # the graph's output keeps its name
        let_take(node, {final: output})
        node.output[:] = [output if name == final else name for name in node.output]
    return kept


def _is_passthrough(node: onnx.NodeProto, known: dict[str, _Known]) -> bool:
    if node.domain:
        return False
    if node.op_type == "Cast":
        given, wanted = known.get(node.input[0]), known.get(node.output[0])
        return given is not None and wanted is not None and given.kind == wanted.kind
    if node.op_type == "Reshape":
        given, target = known.get(node.input[0]), known.get(node.input[1])
        return given is not None and target is not None and _keeps_shape(given.sizes, target.values)
    return node.op_type == "Identity"


def _keeps_shape(sizes: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether a Reshape to ``target`` leaves the sizes as they are; -1 is the batch in both."""
    return len(sizes) > 1 and sizes == target and sizes[0] == -1 and min(sizes[1:]) > 0


class _Known(NamedTuple):
    """What is known of a tensor.

    Attributes:
        kind: Type of its elements, as ``onnx.TensorProto`` numbers them.
        sizes: Of its dimensions, -1 for one that is not known; empty where not even their number is.
        values: Of a short list of constants; else empty.
    """

    kind: int
    sizes: tuple[int, ...]
    values: tuple[int, ...] = ()


def _known(model: onnx.ModelProto) -> dict[str, _Known]:
    """Return what shape inference finds of every tensor."""
    from onnx import TensorProto, numpy_helper, shape_inference

    try:
        graph = shape_inference.infer_shapes(model).graph
    except (shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ConversionFailed(f"The exported model is not valid ONNX: {error}.") from error
    found = {}
    for tensor in graph.initializer:
        short = tensor.data_type == TensorProto.INT64 and len(tensor.dims) == 1 and tensor.dims[0] <= MAX_RANK
        values = tuple(int(value) for value in numpy_helper.to_array(tensor)) if short else ()
        found[tensor.name] = _Known(tensor.data_type, tuple(tensor.dims), values)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        kind = value.type.tensor_type
        sizes = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
        if kind.elem_type:
            found[value.name] = _Known(kind.elem_type, sizes)
    for node in graph.node:
        if node.domain == "ai.onnx.ml" and node.op_type in _FLOAT_OPERATORS:
            name = node.output[-1]
            found[name] = _Known(TensorProto.FLOAT, found[name].sizes if name in found else ())
    return found


def _flatten_operands(model: onnx.ModelProto) -> None:
    """Flatten constants (1, N) that are only ever added to, or the like, tensors (…, M, N)."""
    graph, known = model.graph, _known(model)
    used_as_is = {value.name for value in graph.output}
    for node in graph.node:
        ranks = [len(known[name].sizes) if name in known else 0 for name in node.input]
        fits = node.op_type in _ELEMENTWISE and not node.domain
        for name, other in zip(node.input, reversed(ranks), strict=False):
            if not fits or other < 2:
                used_as_is.add(name)
        used_as_is |= set(taken(node)).difference(node.input)
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # of two constants neither may lose the dimension that the other counts on
        if constants.issuperset(node.input):
            used_as_is.update(node.input)
    for tensor in graph.initializer:
        if len(tensor.dims) == 2 and tensor.dims[0] == 1 and tensor.name not in used_as_is:
            tensor.dims[:] = [math.prod(tensor.dims)]


def _imports(model: onnx.ModelProto) -> list[onnx.OperatorSetIdProto]:
    """Return the operator sets that the nodes use."""
    from onnx import helper

    used: dict[str, str] = {"": ""}  # the core is always declared
    for node in all_nodes(model.graph):
        used.setdefault(node.domain, node.op_type)
    for domain, operator in used.items():
        if domain not in DOMAINS:
            raise UnsupportedOperator(
                f"The model needs the operator {domain}.{operator}, which devices' runtimes do not have."
            )
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    return [helper.make_opsetid(domain, versions[domain]) for domain in sorted(used)]
