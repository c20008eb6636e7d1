"""Small networks with fixed random weights, written node by node: what the ONNX targets are tested on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from converters.data.samples import Inputs
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import Work
from fleet.protocol.manifest import Signature, Task, Tensor
from tests.support.onnx_models import model, value


def work(
    nodes: list[NodeProto],
    constants: dict[str, NDArray[Any]],
    *,
    takes: tuple[int, ...],
    gives: tuple[int, ...],
    samples: NDArray[np.float32] | None = None,
    task: Task = "regression",
    **changes: Any,
) -> Work:
    """Return what targets build from: a graph from ``x``, shape (N, *takes), to ``y``, shape (N, *gives).

    Args:
        nodes: Of the graph.
        constants: By name.
        takes: Shape of a sample.
        gives: Shape of an answer.
        samples: For calibration; none if None.
        task: What the network is for.
        changes: Fields of the work that are to differ.
    """
    graph = model(nodes, [value("x", ["batch", *takes])], [value("y", ["batch", *gives])], constants)
    signature = Signature(
        (Tensor("x", "float32", (-1, *takes)),), (Tensor("y", "float32", (-1, *gives)),), task=task
    )
    return Work(graph.SerializeToString(), signature, None if samples is None else {"x": samples}, **changes)


@cache
def convolutional() -> Work:
    """Return a network of what MobileNets are made of, for images (3, 16, 16).

    It has batch norm, a depthwise convolution, a residual addition, pooling and a dense layer at the end.
    """
    random = np.random.RandomState(0)
    constants: dict[str, NDArray[Any]] = {}

    def kernel(name: str, *shape: int) -> str:
        deviation = np.sqrt(2.0 / np.prod(shape[1:]))
        constants[name] = (random.standard_normal(shape) * deviation).astype(np.float32)
        return name

    def norm(name: str, channels: int) -> list[str]:
        for part, low, high in (
            ("scale", 0.5, 2),
            ("shift", -0.5, 0.5),
            ("mean", -0.5, 0.5),
            ("var", 0.5, 2),
        ):
            constants[f"{name}_{part}"] = random.uniform(low, high, channels).astype(np.float32)
        return [f"{name}_{part}" for part in ("scale", "shift", "mean", "var")]

    constants["bias"] = random.standard_normal(16).astype(np.float32)
    node, pads = helper.make_node, [1, 1, 1, 1]
    nodes = [
        node("Conv", ["x", kernel("k1", 16, 3, 3, 3), "bias"], ["c1"], "conv1", pads=pads),
        node("BatchNormalization", ["c1", *norm("n1", 16)], ["b1"], "norm1"),
        node("Relu", ["b1"], ["r1"], "relu1"),
        node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", kernel("k2", 16, 1, 3, 3)], ["c2"], "depthwise", pads=pads, group=16),
        node("BatchNormalization", ["c2", *norm("n2", 16)], ["b2"], "norm2"),
        node("Relu", ["b2"], ["r2"], "relu2"),
        node("Conv", ["r2", kernel("k3", 16, 16, 1, 1)], ["c3"], "pointwise"),
        node("Add", ["c3", "p1"], ["a3"], "residual"),
        node("Relu", ["a3"], ["r3"], "relu3"),
        node("GlobalAveragePool", ["r3"], ["g"], "average"),
        node("Flatten", ["g"], ["f"], "flatten"),
        node("Gemm", ["f", kernel("w", 10, 16)], ["y"], "dense", transB=1),
    ]
    samples = random.standard_normal((96, 3, 16, 16)).astype(np.float32)
    return work(nodes, constants, takes=(3, 16, 16), gives=(10,), samples=samples)


@cache
def dense() -> Work:
    """Return a network of three dense layers for 48 features behind a scaler, in all forms of Gemm."""
    random = np.random.RandomState(1)
    features = random.standard_normal((600, 48)) * np.geomspace(0.01, 1000, 48) + 5.0

    def weights(*shape: int) -> NDArray[np.float32]:
        return np.asarray(random.standard_normal(shape) / np.sqrt(shape[0]), dtype=np.float32)

    constants: dict[str, NDArray[Any]] = {
        "mean": features.mean(axis=0).astype(np.float32),
        "deviation": features.std(axis=0).astype(np.float32),
        "w1": weights(48, 64),
        "b1": weights(1, 64),
        "w2": np.ascontiguousarray(weights(64, 64).T),
        "b2": weights(64),
        "w3": weights(64, 8),
        "b3": weights(8),
    }
    node = helper.make_node
    nodes = [
        node("Sub", ["x", "mean"], ["centred"], "centre"),
        node("Div", ["centred", "deviation"], ["scaled"], "scale"),
        node("Gemm", ["scaled", "w1", "b1"], ["g1"], "dense1"),
        node("Relu", ["g1"], ["r1"], "relu1"),
        node("Gemm", ["r1", "w2", "b2"], ["g2"], "dense2", transB=1, alpha=0.5, beta=2.0),
        node("Relu", ["g2"], ["r2"], "relu2"),
        node("MatMul", ["r2", "w3"], ["m3"], "dense3"),
        node("Add", ["m3", "b3"], ["y"], "add3"),
    ]
    samples = features.astype(np.float32)
    return work(nodes, constants, takes=(48,), gives=(8,), samples=samples)


@cache
def with_a_bad_layer() -> Work:
    """Return four dense layers; in front of the third one value is a hundred times the others."""
    random = np.random.RandomState(0)
    constants = {f"w{i}": random.standard_normal((32, 32)).astype(np.float32) / 6 for i in range(1, 5)}
    constants["w2"][:, 5] *= 100.0
    constants["w3"][5] /= 100.0
    tensors = ["x", "h1", "h2", "h3", "y"]
    nodes = [
        helper.make_node("MatMul", [tensors[i - 1], f"w{i}"], [tensors[i]], f"layer{i}") for i in range(1, 5)
    ]
    samples = random.standard_normal((64, 32)).astype(np.float32)
    return work(nodes, constants, takes=(32,), gives=(32,), samples=samples)


def answers(model: bytes, built_from: Work, inputs: Inputs | None = None) -> NDArray[Any]:
    """Return a model's answers, to the calibration samples if there are no inputs."""
    session = ONNXRUNTIME.open(model, built_from.signature)
    return session.run(built_from.samples() if inputs is None else inputs)


def relative_error(model: bytes, built_from: Work) -> float:
    """Return how far a model is from the graph that it was built from, relative to that one's spread."""
    expected = answers(built_from.onnx, built_from)
    return float(np.sqrt(np.square(answers(model, built_from) - expected).mean() / expected.var()))


def operators(model: bytes) -> list[str]:
    """Return the operators of an ONNX model in the order of its nodes."""
    return [node.op_type for node in onnx.load_from_string(model).graph.node]
