"""Small ONNX graphs, written node by node, for tests of what reads and converts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None] | None


def value(name: str, shape: Shape, element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Return the statement of an input or output."""
    return helper.make_tensor_value_info(name, element, shape)


def model(
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[Any]] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    domains: dict[str, int] | None = None,
    functions: Iterable[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Return a model of these nodes."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        list(inputs),
        list(outputs),
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, version) for domain, version in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=list(functions))


def cnn(
    *, opset: int = 17, ir_version: int = 8, batch: int | str = "n", reshape: Sequence[int] | None = None
) -> onnx.ModelProto:
    """Return a small classifier of 3 x 8 x 8 images, ending in probabilities of 10 classes."""
    random = np.random.RandomState(0)
    constants: dict[str, NDArray[Any]] = {
        "kernel": random.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "weights": random.standard_normal((100, 10)).astype(np.float32) / 10,
    }
    flatten = helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten")
    if reshape is not None:
        constants["shape"] = np.array(reshape, dtype=np.int64)
        flatten = helper.make_node("Reshape", ["pooled", "shape"], ["flat"], name="flatten")
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], name="conv"),
        helper.make_node("Relu", ["features"], ["active"], name="relu"),
        helper.make_node("MaxPool", ["active"], ["pooled"], name="pool", kernel_shape=[2, 2]),
        flatten,
        helper.make_node("MatMul", ["flat", "weights"], ["logits"], name="dense"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=1),
    ]
    return model(
        nodes,
        [value("image", [batch, 3, 8, 8])],
        [value("probabilities", [batch, 10])],
        constants,
        opset=opset,
        ir_version=ir_version,
    )


def single(
    operator: str, *, shape: Shape = ("n", 4), out: Shape = ("n", 4), domain: str = "", **attributes: Any
) -> onnx.ModelProto:
    """Return a model of one node from ``x`` to ``y``."""
    node = helper.make_node(operator, ["x"], ["y"], name="only", domain=domain, **attributes)
    domains = {domain: 1} if domain else {}
    return model([node], [value("x", shape)], [value("y", out)], domains=domains)


def saved(path: Path, graph: onnx.ModelProto) -> Path:
    """Write a model to a file; return the file."""
    path.write_bytes(graph.SerializeToString())
    return path
