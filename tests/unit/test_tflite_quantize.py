"""Int8 and float16 TFLite: what stays float, what is lost, and that the bytes are always the same."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe import static_wi8_ai8
from numpy.typing import NDArray
from onnx import ModelProto, helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from converters.tflite.emit import emit_tflite
from converters.tflite.inspect import inspect_tflite
from converters.tflite.layers import layers_of, read_tables
from converters.tflite.quantize import quantize_tflite_int8, weights_to_fp16
from converters.tflite.run import TfliteSession
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Tensor
from tests.support.tflite_graphs import graph, operators, weights

node = helper.make_node
SPAN = np.logspace(-3, 3, 64).astype(np.float32)
"""Units of the features: from millimetres to kilometres, as in any table."""


@cache
def digits() -> tuple[ModelProto, NDArray[np.float32], NDArray[np.int64]]:
    """Return an MLP that begins with standardization, samples that it knows, and their labels."""
    features, labels = load_digits(return_X_y=True)
    features = (features + 1).astype(np.float32) * SPAN
    mean, scale = features.mean(axis=0), features.std(axis=0) + SPAN
    classifier = MLPClassifier((64, 32), max_iter=60, random_state=0, tol=1e-3)
    classifier.fit((features - mean) / scale, labels)
    constants = {"mean": mean, "factor": 1 / scale}
    nodes = [node("Sub", ["x", "mean"], ["centred"]), node("Mul", ["centred", "factor"], ["h0"])]
    for index, (matrix, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        constants |= {f"w{index}": matrix.astype(np.float32), f"b{index}": bias.astype(np.float32)}
        last = index == len(classifier.coefs_) - 1
        nodes.append(node("MatMul", [f"h{index}", f"w{index}"], [f"p{index}"], name=f"dense{index}"))
        nodes.append(node("Add", [f"p{index}", f"b{index}"], ["logits" if last else f"s{index}"]))
        if not last:
            nodes.append(node("Relu", [f"s{index}"], [f"h{index + 1}"], name=f"relu{index}"))
    nodes.append(node("Softmax", ["logits"], ["y"]))
    return graph(nodes, {"x": ("N", 64)}, constants), features, labels


def accuracy(model: bytes) -> float:
    _, features, labels = digits()
    answers = TfliteSession(model).run({"x": features})["y"]
    return float((answers.argmax(axis=1) == labels).mean())


@cache
def fp32() -> bytes:
    return emit_tflite(digits()[0])


@cache
def int8() -> bytes:
    return quantize_tflite_int8(fp32(), {"x": digits()[1]})


def test_int8_keeps_the_accuracy_in_a_third_of_the_bytes() -> None:
    assert accuracy(fp32()) > 0.97
    assert accuracy(int8()) > accuracy(fp32()) - 0.005
    assert len(int8()) < 0.36 * len(fp32())


@pytest.mark.filterwarnings("ignore:Warning. Enabling")
def test_quantizing_the_standardization_too_ruins_the_accuracy() -> None:
    _, features, _ = digits()
    quantizer = Quantizer(fp32(), static_wi8_ai8())
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    calibration = {"serving_default": [{"x": row[None]} for row in features[::40]]}
    ranges = quantizer.calibrate(calibration, num_threads=1)
    everything = quantizer.quantize(ranges, enable_progress_report=False).quantized_model
    assert everything is not None
    assert accuracy(bytes(everything)) < accuracy(int8()) - 0.2


def test_int8_has_float_ends_and_the_source_signature() -> None:
    described = inspect_tflite(int8())
    assert described.quantization == "int8"
    assert described.inputs == (Tensor("x", "float32", (-1, 64)),)
    assert described.outputs == (Tensor("y", "float32", (-1, 10)),)
    assert operators(int8()) == ["SUB", "MUL", "QUANTIZE", *["FULLY_CONNECTED"] * 3, "DEQUANTIZE", "SOFTMAX"]


def products(model: bytes) -> list[str]:
    return [layer.name for layer in layers_of(read_tables(model)) if layer.is_product]


def test_layers_are_known_by_tensor_and_by_any_of_their_nodes() -> None:
    assert products(fp32()) == ["h1", "h2", "logits"]
    _, features, _ = digits()
    by_tensor, by_product, by_activation = (
        quantize_tflite_int8(fp32(), {"x": features}, keep_float=[name]) for name in ("h2", "dense1", "relu1")
    )
    assert by_tensor == by_product == by_activation
    assert operators(by_tensor).count("QUANTIZE") == 2
    assert len(by_tensor) > len(int8())


def test_all_layers_in_float_leave_nothing_to_quantize() -> None:
    with pytest.raises(ConversionFailed, match="no product"):
        quantize_tflite_int8(fp32(), {"x": digits()[1]}, keep_float=products(fp32()))


def test_unknown_layer_is_refused_by_name() -> None:
    with pytest.raises(ConversionFailed, match=r"no layer 'dense9'.*h1, h2, logits"):
        quantize_tflite_int8(fp32(), {"x": digits()[1]}, keep_float=["dense9"])


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ({}, "one or more samples"),
        ({"x": np.zeros((0, 64), dtype=np.float32)}, "one or more samples"),
        ({"z": np.zeros((1, 64), dtype=np.float32)}, "takes the inputs x"),
        ({"x": np.zeros((1, 63), dtype=np.float32)}, "cannot run"),
        ({"x": np.full((1, 64), np.nan, dtype=np.float32)}, "not finite"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples: dict[str, NDArray[np.float32]], why: str) -> None:
    with pytest.raises(ConversionFailed, match=why):
        quantize_tflite_int8(fp32(), samples)


def test_int8_is_the_same_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(fp32())
    np.save(tmp_path / "samples.npy", digits()[1])
    program = (
        "import sys, pathlib, numpy; from converters.tflite.quantize import quantize_tflite_int8;"
        "folder = pathlib.Path(sys.argv[1]); model = (folder / 'model.tflite').read_bytes();"
        "sys.stdout.buffer.write(quantize_tflite_int8(model, {'x': numpy.load(folder / 'samples.npy')}))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        assert done.stdout == int8()


def test_order_of_samples_does_not_matter() -> None:
    assert quantize_tflite_int8(fp32(), {"x": digits()[1][::-1]}) == int8()


def test_fp16_weights_answer_nearly_the_same_in_half_the_bytes() -> None:
    model = weights_to_fp16(fp32())
    assert inspect_tflite(model).quantization == "fp16"
    assert len(model) < 0.6 * len(fp32())
    inputs = {"x": digits()[1]}
    np.testing.assert_allclose(
        TfliteSession(model).run(inputs)["y"], TfliteSession(fp32()).run(inputs)["y"], atol=5e-3
    )
    assert weights_to_fp16(fp32()) == model


def test_weight_too_large_for_fp16_is_refused_by_layer() -> None:
    large = np.full((3, 2), 70000, dtype=np.float32)
    model = graph([node("MatMul", ["x", "w"], ["y"])], {"x": ("N", 3)}, {"w": large})
    with pytest.raises(ConversionFailed, match="'y' has a weight of 70000"):
        weights_to_fp16(emit_tflite(model))


def test_model_without_products_is_refused() -> None:
    model = emit_tflite(graph([node("Relu", ["x"], ["y"])], {"x": ("N", 3)}))
    with pytest.raises(ConversionFailed, match="no product"):
        weights_to_fp16(model)


def test_large_constants_stay_within_the_flatbuffer() -> None:
    model = graph([node("MatMul", ["x", "w"], ["y"])], {"x": ("N", 512)}, {"w": weights(1, 512, 1024)})
    quantized = quantize_tflite_int8(emit_tflite(model), {"x": weights(2, 8, 512)})
    assert len(quantized) > 2**19
    assert not inspect_tflite(quantized).external_buffers


def test_convolutions_run_in_int8_from_end_to_end() -> None:
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["p1", "w2"], ["c2"], group=8, pads=[1, 1, 1, 1]),
        node("Add", ["p1", "c2"], ["a"]),
        node("GlobalAveragePool", ["a"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("MatMul", ["f", "w3"], ["y"]),
    ]
    constants = {"w1": weights(1, 8, 3, 3, 3), "w2": weights(2, 8, 1, 3, 3), "w3": weights(3, 8, 4)}
    model = emit_tflite(graph(nodes, {"x": ("N", 3, 9, 9)}, constants))
    samples = {"x": weights(4, 200, 3, 9, 9)}
    quantized = quantize_tflite_int8(model, samples)
    found = operators(quantized)
    assert (found.count("QUANTIZE"), found.count("DEQUANTIZE")) == (1, 1)
    wanted = TfliteSession(model).run(samples)["y"]
    assert np.abs(TfliteSession(quantized).run(samples)["y"] - wanted).max() < 0.03 * np.abs(wanted).max()
