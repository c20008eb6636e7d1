"""Whole models as TFLite: those that are promised, in few operators, and what a graph must never lose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, load_from_string
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, RobustScaler, StandardScaler

from converters.tflite.emit import emit_tflite
from converters.tflite.inspect import inspect_tflite
from fleet.protocol.manifest import Tensor
from tests.support.tflite_graphs import assert_same_answers, graph, operators, weights

node = helper.make_node


def mlp() -> ModelProto:
    """Return standardization, two dense layers and softmax."""
    nodes = [
        node("Sub", ["x", "mean"], ["centred"], name="centre"),
        node("Div", ["centred", "scale"], ["scaled"], name="scale"),
        node("MatMul", ["scaled", "w1"], ["product"], name="hidden"),
        node("Add", ["product", "b1"], ["sum"], name="hidden_bias"),
        node("Relu", ["sum"], ["hidden"], name="relu"),
        node("Gemm", ["hidden", "w2", "b2"], ["logits"], name="last"),
        node("Softmax", ["logits"], ["y"], name="softmax", axis=-1),
    ]
    constants: dict[str, NDArray[Any]] = {
        "mean": weights(1, 64),
        "scale": np.abs(weights(2, 64)) + 0.1,
        "w1": weights(3, 64, 32),
        "b1": weights(4, 32),
        "w2": weights(5, 32, 10),
        "b2": weights(6, 10),
    }
    return graph(nodes, {"x": ("N", 64)}, constants)


def batch_norm(name: str, source: str, channels: int) -> tuple[Any, dict[str, NDArray[Any]]]:
    parameters = [f"{name}_{part}" for part in ("scale", "bias", "mean", "variance")]
    values: list[NDArray[Any]] = [weights(index, channels) for index in range(3)]
    constants = dict(zip(parameters, [*values, np.abs(weights(9, channels)) + 0.2], strict=True))
    return node("BatchNormalization", [source, *parameters], [name], name=name), constants


def cnn() -> ModelProto:
    """Return two convolutions with pooling and a dense layer behind a Flatten."""
    norm, constants = batch_norm("norm", "second", 6)
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["first"], pads=[1, 1, 1, 1]),
        node("Relu", ["first"], ["active"]),
        node("MaxPool", ["active"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pooled", "w2"], ["second"], pads=[1, 1, 1, 1]),
        norm,
        node("Relu", ["norm"], ["active2"]),
        node("AveragePool", ["active2"], ["pooled2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pooled2"], ["flat"]),
        node("Dropout", ["flat"], ["kept"]),
        node("Gemm", ["kept", "w3", "b3"], ["y"], transB=1),
    ]
    constants |= {"w1": weights(11, 4, 3, 3, 3), "b1": weights(12, 4), "w2": weights(13, 6, 4, 3, 3)}
    constants |= {"w3": weights(14, 10, 24), "b3": weights(15, 10)}
    return graph(nodes, {"x": ("N", 3, 8, 8)}, constants)


def mobile() -> ModelProto:
    """Return a depthwise-separable block with ReLU6 and a residual, as in MobileNet."""
    constants: dict[str, NDArray[Any]] = {
        "six": np.array(6, dtype=np.float32),
        "zero": np.array(0, dtype=np.float32),
        "axes": np.array([2, 3], dtype=np.int64),
    }
    nodes = []
    layers = (("stem", "x", 3, 8, 3, 1), ("wide", "stem", 8, 16, 1, 1), ("deep", "wide", 16, 16, 3, 16))
    for name, source, inputs, outputs, size, group in layers:
        norm, parameters = batch_norm(f"{name}_norm", f"{name}_conv", outputs)
        constants |= parameters | {f"{name}_w": weights(size + outputs, outputs, inputs // group, size, size)}
        pads = [size // 2] * 4
        nodes += [
            node("Conv", [source, f"{name}_w"], [f"{name}_conv"], group=group, pads=pads),
            norm,
            node("Clip", [f"{name}_norm", "zero", "six"], [name]),
        ]
    norm, parameters = batch_norm("narrow", "narrow_conv", 8)
    constants |= parameters | {"narrow_w": weights(40, 8, 16, 1, 1), "w": weights(41, 8, 5)}
    nodes += [
        node("Conv", ["deep", "narrow_w"], ["narrow_conv"]),
        norm,
        node("Add", ["stem", "narrow"], ["residual"]),
        node("GlobalAveragePool", ["residual"], ["mean"]),
        node("Squeeze", ["mean", "axes"], ["flat"]),
        node("MatMul", ["flat", "w"], ["logits"]),
        node("Softmax", ["logits"], ["y"]),
    ]
    return graph(nodes, {"x": ("N", 3, 8, 8)}, constants)


def autoencoder() -> ModelProto:
    """Return strided convolutions down, and up by a transposed convolution and by resizing."""
    norm, constants = batch_norm("norm", "up", 4)
    nodes = [
        node("Conv", ["x", "w1"], ["down"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["down"], ["a"]),
        node("Conv", ["a", "w2"], ["code"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("ConvTranspose", ["code", "w3"], ["up"], strides=[2, 2]),
        norm,
        node("Relu", ["norm"], ["b"]),
        node("Resize", ["b", "", "scales"], ["large"], mode="nearest"),
        node("Conv", ["large", "w4"], ["c"], pads=[1, 1, 1, 1]),
        node("Sigmoid", ["c"], ["y"]),
    ]
    constants |= {"w1": weights(1, 4, 1, 3, 3), "w2": weights(2, 2, 4, 3, 3), "w3": weights(3, 2, 4, 2, 2)}
    constants |= {"w4": weights(4, 1, 4, 3, 3), "scales": np.array([1, 1, 2, 2], dtype=np.float32)}
    return graph(nodes, {"x": ("N", 1, 16, 16)}, constants)


def sequence() -> ModelProto:
    """Return a convolution over time."""
    norm, constants = batch_norm("norm", "c", 8)
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[2, 2]),
        norm,
        node("Relu", ["norm"], ["a"]),
        node("MaxPool", ["a"], ["p"], kernel_shape=[2], strides=[2]),
        node("GlobalAveragePool", ["p"], ["m"]),
        node("Flatten", ["m"], ["y"]),
    ]
    return graph(nodes, {"x": ("N", 3, 40)}, constants | {"w": weights(1, 8, 3, 5)})


MODELS = {
    mlp: ["SUB", "DIV", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"],
    cnn: ["TRANSPOSE", *["CONV_2D"] * 2, "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESHAPE", "FULLY_CONNECTED"],
    mobile: [
        "TRANSPOSE",
        *["CONV_2D"] * 3,
        "DEPTHWISE_CONV_2D",
        "ADD",
        "MEAN",
        "RESHAPE",
        "FULLY_CONNECTED",
        "SOFTMAX",
    ],
}


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_model_needs_no_operator_too_many(build: Any) -> None:
    assert sorted(operators(assert_same_answers(build()))) == sorted(MODELS[build])


@pytest.mark.parametrize("build", [autoencoder, sequence], ids=lambda build: build.__name__)
def test_batch_norms_and_activations_go_into_convolutions(build: Any) -> None:
    found = operators(assert_same_answers(build()))
    assert not {"MUL", "ADD", "RELU"}.intersection(found)


DIGITS = np.random.RandomState(0).uniform(0, 16, (200, 64)).astype(np.float32)
LABELS = DIGITS[:, :10].argmax(axis=1)
ESTIMATORS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=20)),
    "binary": make_pipeline(MinMaxScaler(), LogisticRegression()),
    "mlp": make_pipeline(StandardScaler(), MLPClassifier((8,), activation="tanh", random_state=0)),
    "regressor": make_pipeline(RobustScaler(), MLPRegressor(hidden_layer_sizes=(8,), random_state=0)),
    "pca": make_pipeline(StandardScaler(), PCA(8, whiten=True, random_state=0), LogisticRegression()),
    "normalizer": make_pipeline(Normalizer(), LogisticRegression()),
    "ridge": make_pipeline(StandardScaler(), Ridge()),
    "kmeans": make_pipeline(StandardScaler(), KMeans(4, n_init=1, random_state=0)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_pipelines_answer_as_in_onnx(name: str) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    pipeline = ESTIMATORS[name].fit(DIGITS, LABELS > 4 if name == "binary" else LABELS)
    model = to_onnx(
        pipeline,
        initial_types=[("x", FloatTensorType([None, 64]))],
        options={id(pipeline[-1]): {"zipmap": False}} if hasattr(pipeline[-1], "classes_") else {},
        target_opset=17,
        black_op={"Scaler", "LinearClassifier", "LinearRegressor", "Normalizer", "Imputer"},
    )
    del model.graph.output[:-1]  # the label's part is no core ONNX
    assert_same_answers(model)


def test_signature_is_that_of_the_source() -> None:
    nodes = [node("Concat", ["b", "a"], ["z"], axis=1), node("Relu", ["a"], ["y"])]
    model = graph(nodes, {"b": ("N", 2, 3, 3), "a": ("N", 4, 3, 3)}, outputs=("z", "y"))
    described = inspect_tflite(assert_same_answers(model))
    assert described.inputs == (Tensor("b", "float32", (-1, 2, 3, 3)), Tensor("a", "float32", (-1, 4, 3, 3)))
    assert described.outputs == (Tensor("z", "float32", (-1, 6, 3, 3)), Tensor("y", "float32", (-1, 4, 3, 3)))


def test_fixed_batch_stays_fixed() -> None:
    model = graph([node("Relu", ["x"], ["y"])], {"x": (1, 3)})
    assert inspect_tflite(assert_same_answers(model)).inputs[0].shape == (1, 3)


def test_output_that_is_the_input_is_a_tensor_of_its_own() -> None:
    nodes = [node("Identity", ["x"], ["y"]), node("Identity", ["x"], ["z"])]
    assert_same_answers(graph(nodes, {"x": ("N", 3)}, outputs=("y", "z")))


def test_tensor_that_is_an_output_is_not_fused_away() -> None:
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Relu", ["z"], ["y"])]
    assert_same_answers(graph(nodes, {"x": ("N", 3)}, {"w": weights(1, 3, 4)}, outputs=("y", "z")))


def test_weights_shared_by_two_layers_are_scaled_once() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Mul", ["a", "two"], ["b"]),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    constants = {"w": weights(1, 4, 4), "two": np.array(2, dtype=np.float32)}
    assert operators(assert_same_answers(graph(nodes, {"x": ("N", 4)}, constants))) == ["FULLY_CONNECTED"] * 2


def test_flatten_read_by_two_layers_moves_into_both() -> None:
    nodes = [
        node("Conv", ["x", "k"], ["c"]),
        node("Flatten", ["c"], ["f"]),
        node("MatMul", ["f", "v"], ["y"]),
        node("MatMul", ["f", "w"], ["z"]),
    ]
    constants = {"k": weights(1, 3, 2, 2, 2), "v": weights(2, 27, 4), "w": weights(3, 27, 5)}
    model = graph(nodes, {"x": ("N", 2, 4, 4)}, constants, outputs=("y", "z"))
    assert operators(assert_same_answers(model)).count("TRANSPOSE") == 1  # the input's


def test_flatten_read_by_another_operator_stays() -> None:
    nodes = [node("Conv", ["x", "k"], ["c"]), node("Flatten", ["c"], ["y"])]
    assert_same_answers(graph(nodes, {"x": ("N", 2, 4, 4)}, {"k": weights(1, 3, 2, 2, 2)}))


def test_same_model_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(mobile().SerializeToString())
    program = (
        "import sys, onnx; from converters.tflite.emit import emit_tflite;"
        "sys.stdout.buffer.write(emit_tflite(onnx.load(sys.argv[1])))"
    )
    files = {
        subprocess.run(
            [sys.executable, "-c", program, source],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert files == {emit_tflite(load_from_string(source.read_bytes()))}
