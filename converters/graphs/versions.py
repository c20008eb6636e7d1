"""What an ONNX graph asks of its runtime: operator set, IR version, and the oldest onnxruntime for both.

A model states two versions. The *operator set* gives its operators their meaning; the *IR version* says which
kinds of tensors and structures the file may hold. onnxruntime refuses a model with either newer than itself.
This is what each release loads, measured by loading a model of one node for each version on the first release
of every series from 1.20 to 1.31 (compare its documentation, "ONNX Runtime compatibility"):

==========  ============  =========================  ============
release     ``ai.onnx``   ``ai.onnx.ml``             IR version
==========  ============  =========================  ============
1.20        21            5                          10
1.21, 1.22  22            5                          10
1.23        23            5                          11
1.24        25            5                          13
1.25–1.31   26            5                          13
==========  ============  =========================  ============

So a model of operator set 17 to 21 runs on every device: the device package requires 1.20 anyway. The IR
version of a file says nothing about what is in it, so a source is written with the lowest that has its
element types (`lowest_ir_version`; ``onnx.proto``, "Version").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    import onnx

RUNTIME = "onnxruntime"
MINIMUM_RUNTIME_VERSION = "1.20"
OPSET = 17
IR_VERSION = 8
GRAPH_NAME = "muster"
NEWEST_OPSET_EVERYWHERE = 21
"""Newest operator set that every device runs."""


class Release(NamedTuple):
    """The newest versions that a release of onnxruntime, and each later one, loads.

    Attributes:
        version: Of the release.
        opset: Of domain ``ai.onnx``.
        ml_opset: Of domain ``ai.onnx.ml``.
        ir_version: Of the file.
    """

    version: str
    opset: int
    ml_opset: int
    ir_version: int


RELEASES = (
    Release(MINIMUM_RUNTIME_VERSION, 21, 5, 10),
    Release("1.21", 22, 5, 10),
    Release("1.23", 23, 5, 11),
    Release("1.24", 25, 5, 13),
    Release("1.25", 26, 5, 13),
)

_IR_VERSION_OF_TYPE = {
    "FLOAT8E4M3FN": 9, "FLOAT8E4M3FNUZ": 9, "FLOAT8E5M2": 9, "FLOAT8E5M2FNUZ": 9, "UINT4": 10, "INT4": 10,
    "FLOAT4E2M1": 11, "FLOAT8E8M0": 12, "UINT2": 13, "INT2": 13, "FLOAT6E2M3": 14, "FLOAT6E3M2": 14,
}  # fmt: skip


def opset_of(model: onnx.ModelProto, domain: str = "") -> int:
    """Return the version of an operator set that a model imports; 0 if it imports none of that domain."""
    wanted = {"", "ai.onnx"} if domain in {"", "ai.onnx"} else {domain}
    return max((entry.version for entry in model.opset_import if entry.domain in wanted), default=0)


def minimum_onnxruntime(model: onnx.ModelProto) -> str:
    """Return the oldest release of onnxruntime that loads a model, by the table at the head of this file.

    Args:
        model: Its operators of other domains than ONNX's own are not looked at.

    Raises:
        ConversionFailed: It needs a newer release than any in the table.
    """
    return release_for(opset_of(model), opset_of(model, "ai.onnx.ml"), model.ir_version)


def release_for(opset: int, ml_opset: int, ir_version: int) -> str:
    """Return the oldest onnxruntime that knows these versions; raises like `minimum_onnxruntime`."""
    for release in RELEASES:
        if opset <= release.opset and ml_opset <= release.ml_opset and ir_version <= release.ir_version:
            return release.version
    raise ConversionFailed(
        f"No known release of onnxruntime loads operator set {opset} (ai.onnx.ml {ml_opset}) in IR version"
        f" {ir_version}.",
        remedy=f"Export the model with operator set {NEWEST_OPSET_EVERYWHERE} or older.",
    )


def lowest_ir_version(model: onnx.ModelProto) -> int:
    """Return the lowest IR version, at least `IR_VERSION`, that has a model's element types and functions."""
    from onnx import TensorProto

    types = {tensor.data_type for tensor in all_tensors(model)} | set(_declared_types(model))
    for graph in all_graphs(model.graph):
        types.update(a.i for node in graph.node for a in node.attribute if a.name in {"to", "output_dtype"})
    names = {number: name for name, number in TensorProto.DataType.items()}
    return max([IR_VERSION, *(_IR_VERSION_OF_TYPE.get(names.get(number, ""), 0) for number in types)])


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and every graph inside its nodes, such as the branches of If."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.output:
                    yield from all_graphs(inner)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor whose contents a model holds: initializers, and attributes of nodes."""
    nodes = [node for function in model.functions for node in function.node]
    inner = [a.g for node in nodes for a in node.attribute if a.HasField("g")]
    for graph in (g for outer in (model.graph, *inner) for g in all_graphs(outer)):
        nodes.extend(graph.node)
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _declared_types(model: onnx.ModelProto) -> Iterator[int]:
    for graph in all_graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield value.type.tensor_type.elem_type
