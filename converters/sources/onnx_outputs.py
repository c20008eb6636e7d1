"""Which outputs of an ONNX model are kept, and which of them is judged.

Judged is the first output of floats, put in front. Other outputs of floats stay behind it. Exporters of
scikit-learn models add two things that devices have no use for, and that are dropped with a caution:

* a *label*, one whole number or text for each sample, which the greatest probability says as well;
* *ZipMap*, which turns the probabilities (N, C) into a list of N dictionaries. Its input takes its place, and
  the dictionary's keys become the names of the classes.

What only a dropped output needs goes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from converters.graphs.versions import all_graphs
from fleet.protocol.errors import InvalidModel

if TYPE_CHECKING:
    import onnx

_FLOATS = frozenset({"FLOAT", "FLOAT16", "DOUBLE"})
_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


class Outputs(NamedTuple):
    """What was done.

    Attributes:
        classes: Names of the classes that the graph itself states; empty where it states none.
        labelled: Whether a label was among the outputs.
        cautions: What was dropped, in whole sentences.
    """

    classes: tuple[str, ...]
    labelled: bool
    cautions: tuple[str, ...]


def choose_outputs(model: onnx.ModelProto, name: str) -> Outputs:
    """Keep the outputs of floats, the judged one first, and the nodes that they need.

    Args:
        model: In the plain form; changed in place.
        name: What to call it in messages.

    Raises:
        InvalidModel: It has no output of floats.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    classes = _stated_classes(model)
    producers = {output: node for node in graph.node for output in node.output}
    kinds = {number: kind for kind, number in TensorProto.DataType.items()}
    kept, dropped, labelled = [], [], False
    for value in graph.output:
        producer = producers.get(value.name)
        kind = kinds.get(value.type.tensor_type.elem_type, "UNDEFINED")
        if producer is not None and producer.op_type == "ZipMap" and producer.domain == "ai.onnx.ml":
            kept.append(helper.make_tensor_value_info(producer.input[0], TensorProto.FLOAT, None))
            dropped.append(f"{value.name!r} (ZipMap; its input {producer.input[0]!r} takes its place)")
        elif kind in _FLOATS:
            kept.append(value)
        else:
            dropped.append(f"{value.name!r} ({_kind(value, kind)})")
            labelled = labelled or (kind in {"INT64", "INT32", "STRING"} and _is_label(value))
    if not kept:
        raise InvalidModel(
            f"{name} has no output of floating-point numbers to judge; only {', '.join(dropped) or 'none'}.",
            remedy="Export the scores or probabilities rather than the chosen class.",
        )
    del graph.output[:]
    graph.output.extend(kept)
    _prune(graph)
    cautions = []
    if dropped:
        cautions.append(f"Outputs that are not tensors of floats were dropped: {', '.join(dropped)}.")
    if len(kept) > 1:
        cautions.append(f"Of its {len(kept)} outputs only the first, {kept[0].name!r}, is judged.")
    return Outputs(classes, labelled, tuple(cautions))


def _kind(value: onnx.ValueInfoProto, kind: str) -> str:
    return kind.lower() if value.type.HasField("tensor_type") else "not a tensor"


def _is_label(value: onnx.ValueInfoProto) -> bool:
    """Whether it is one value for each sample."""
    dims = value.type.tensor_type.shape.dim
    return len(dims) == 1 or (len(dims) == 2 and dims[1].dim_value == 1)


def _stated_classes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of classes that the nodes agree on."""
    found = {
        tuple(value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values)
        for graph in all_graphs(model.graph)
        for node in graph.node
        if node.domain == "ai.onnx.ml"
        for attribute in node.attribute
        if attribute.name in _LABELS
        for values in [attribute.strings or attribute.ints]
        if values
    }
    return found.pop() if len(found) == 1 else ()


def _prune(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants on which no output depends."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_read_by(node))
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    nodes = kept[::-1]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, in its inner graphs too."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            names.update(value.name for value in inner.output)
            for each in inner.node:
                names |= _read_by(each)
    return names
