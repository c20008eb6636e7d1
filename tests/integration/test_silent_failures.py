"""Conversions that fail without a word: each is reproduced with the plain library, then caught by ours."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    create_calibrator,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from sklearn.datasets import load_wine
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from converters.graphs.calibration import calibrated_ranges
from converters.graphs.ort_format import ort_operators
from converters.sources.sklearn import open_sklearn
from converters.target import Work
from converters.targets.onnx_fp16 import build as build_fp16
from converters.targets.onnx_int4 import build as build_int4
from converters.targets.onnx_int8 import build as build_int8
from converters.targets.ort import build as build_ort
from converters.targets.ort import check_portable
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import answers, convolutional, dense, operators, relative_error, work


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]  # the base class has no types
    def __init__(self, inputs: dict[str, NDArray[Any]]) -> None:
        self._left = [inputs]

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return self._left.pop() if self._left else None


def _plainly_quantized(given: Work, **options: Any) -> bytes:
    """Return what onnxruntime makes of a graph by itself."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(given.onnx)
        quantize_static(before, after, _OneBatch(given.samples()), **options)
        return after.read_bytes()


def _optimized(model: bytes, level: Any, suffix: str = "onnx") -> bytes:
    """Return what onnxruntime saves of a model at a level of optimization."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder, f"model.{suffix}"))
        options.graph_optimization_level = level
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return Path(options.optimized_model_filepath).read_bytes()


EXTENDED = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

# --- 4-bit weights of Gemm: nothing happens -----------------------------------------------------------------

PLAIN_4_BIT = """
import json, sys, onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
quantizer = MatMulNBitsQuantizer(onnx.load(sys.argv[1]), block_size=32)
quantizer.process()
print(json.dumps([node.op_type for node in quantizer.model.model.graph.node]))
"""


def _gemms() -> Work:
    random = np.random.RandomState(0)
    constants = {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in (("w1", (64, 64)), ("b1", (64,)), ("w2", (64, 64)), ("b2", (64,)))
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        helper.make_node("Gemm", ["h", "w2", "b2"], ["y"], "second"),
    ]
    samples = random.standard_normal((32, 64)).astype(np.float32)
    return work(nodes, constants, takes=(64,), gives=(64,), samples=samples)


def test_4_bit_quantization_of_gemm_does_nothing(tmp_path: Path) -> None:
    given = _gemms()
    path = tmp_path / "gemms.onnx"
    path.write_bytes(given.onnx)
    # In a process of its own: the library configures logging for all as it is imported.
    plain = subprocess.run(
        [sys.executable, "-c", PLAIN_4_BIT, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(plain.stdout.splitlines()[-1]) == ["Gemm", "Gemm"]

    int4 = build_int4(given)
    assert operators(int4).count("MatMulNBits") == 2
    assert len(int4) < 0.25 * len(given.onnx)
    assert relative_error(int4, given) < 0.15


# --- Quantized preprocessing: accuracy is gone --------------------------------------------------------------


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler()])
def test_a_quantized_scaler_ruins_accuracy(scaler: Any) -> None:
    features, labels = load_wine(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    features, labels = features[order].astype(np.float32), labels[order]
    network = MLPClassifier((32,), random_state=0, max_iter=60, solver="lbfgs")
    pipeline: Pipeline = make_pipeline(scaler, network).fit(features[:118], labels[:118])
    source = open_sklearn(pipeline, name="wine")
    assert source.onnx is not None
    given = Work(source.onnx, source.signature, {"input": features[:118]})

    def accuracy(model: bytes) -> float:
        probabilities = answers(model, given, {"input": features[118:]})
        return float((probabilities.argmax(axis=1) == labels[118:]).mean())

    every = sorted(set(operators(given.onnx)) - {"Softmax"})
    assert accuracy(given.onnx) > 0.93
    assert accuracy(_plainly_quantized(given, op_types_to_quantize=every)) < 0.8
    assert accuracy(build_int8(given)) > accuracy(given.onnx) - 0.015


# --- A factor of Gemm: forgotten ----------------------------------------------------------------------------


def test_static_quantization_forgets_the_factor_of_a_bias() -> None:
    constants = {"w": np.eye(16, dtype=np.float32), "b": np.full(16, 2.0, dtype=np.float32)}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "only", beta=3.0)
    samples = np.random.RandomState(0).uniform(-1, 1, (64, 16)).astype(np.float32)
    given = work([node], constants, takes=(16,), gives=(16,), samples=samples)
    expected = samples + 6.0
    plain = answers(_plainly_quantized(given), given)
    assert np.abs(plain - expected).min() > 3.0
    assert np.abs(answers(build_int8(given), given) - expected).max() < 0.05


# --- Quantized, and computed in float -----------------------------------------------------------------------


def test_a_quantized_product_with_a_bias_is_computed_in_float() -> None:
    constants = {"w": np.eye(64, dtype=np.float32), "b": np.ones(64, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("Add", ["h", "b"], ["y"], "bias"),
    ]
    samples = np.random.RandomState(0).standard_normal((32, 64)).astype(np.float32)
    given = work(nodes, constants, takes=(64,), gives=(64,), samples=samples)
    options = {"OpTypesToExcludeOutputQuantization": ["MatMul"]}
    plain = _plainly_quantized(given, op_types_to_quantize=["MatMul"], extra_options=options)
    assert {"Gemm", "DequantizeLinear"} <= set(operators(_optimized(plain, EXTENDED)))
    assert operators(_optimized(build_int8(given), EXTENDED)) == ["QuantizeLinear", "QGemm"]


# --- Entropy calibration: the same as min-max ---------------------------------------------------------------


def test_entropy_calibration_clips_nothing(tmp_path: Path) -> None:
    samples = np.random.RandomState(0).standard_normal((400, 16)).astype(np.float32)
    samples[3, 3] = 300.0
    constants = {"w": np.eye(16, dtype=np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "only")
    given = work([node], constants, takes=(16,), gives=(16,), samples=samples)
    (tmp_path / "model.onnx").write_bytes(given.onnx)
    calibrator = create_calibrator(
        tmp_path / "model.onnx",
        augmented_model_path=str(tmp_path / "augmented.onnx"),
        calibrate_method=CalibrationMethod.Entropy,
    )
    calibrator.collect_data(_OneBatch({"x": samples}))
    assert calibrator.compute_data()["x"].range_value[1] == samples.max()
    low, high = calibrated_ranges(given.onnx, {"x": samples}, ["x"], "entropy")["x"]
    assert samples.min() == low
    assert high < 0.2 * samples.max()


# --- float16: overflow --------------------------------------------------------------------------------------


def _amplified(factor: float, brought_back: float) -> Work:
    """Return a dense layer whose output is amplified and brought back."""
    constants = {
        "w": np.eye(8, dtype=np.float32),
        "up": np.full(8, factor, dtype=np.float32),
        "down": np.full(8, brought_back, dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("Mul", ["h", "up"], ["a"], "amplify"),
        helper.make_node("Mul", ["a", "down"], ["y"], "attenuate"),
    ]
    samples = np.random.RandomState(0).uniform(3, 9, (16, 8)).astype(np.float32)
    return work(nodes, constants, takes=(8,), gives=(8,), samples=samples)


def _plainly_halved(given: Work) -> onnx.ModelProto:
    halved = convert_float_to_float16(onnx.load_from_string(given.onnx), keep_io_types=True)
    assert isinstance(halved, onnx.ModelProto)
    return halved


def test_constants_beyond_float16_are_clamped() -> None:
    given = _amplified(200_000.0, 1 / 200_000)
    plain = _plainly_halved(given)
    stored = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    assert (stored["up"] == 65504).all()  # a third of what it was, and no word about it
    with pytest.raises(ConversionFailed, match=r"'amplify' \(Mul\) has the constant 200000"):
        build_fp16(given)


def test_activations_beyond_float16_are_right_here_and_infinite_on_a_device() -> None:
    given = _amplified(30_000.0, 1 / 30_000)
    plain = _plainly_halved(given)
    here = answers(plain.SerializeToString(), given)
    np.testing.assert_allclose(here, given.samples()["x"], rtol=5e-3)
    in_order = OnnxModel(plain)
    in_order.topological_sort()
    with np.errstate(over="ignore"):  # that is what is shown
        device = ReferenceEvaluator(in_order.model).run(["y"], given.samples())
    assert np.isinf(np.asarray(device)).all()
    with pytest.raises(ConversionFailed, match=r"'amplify' \(Mul\) has values up to 2\d\d\d\d\d"):
        build_fp16(given)


# --- ORT format: bound to one kind of processor -------------------------------------------------------------


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="only x86 has the layout nchwc")
def test_an_ort_file_saved_at_level_all_holds_operators_for_this_processor() -> None:
    plain = _optimized(convolutional().onnx, ALL, "ort")
    assert "com.microsoft.nchwc" in {domain for domain, _ in ort_operators(plain)}
    with pytest.raises(ConversionFailed, match=r"com\.microsoft\.nchwc\.Conv"):
        check_portable(plain)
    portable = build_ort(convolutional())
    assert {domain for domain, _ in ort_operators(portable)} <= {"", "com.microsoft"}
    assert relative_error(portable, convolutional()) < 1e-5


# --- Dynamic int8: kernels many times slower, and garbage on an old runtime ---------------------------------


@pytest.mark.parametrize("given", [convolutional(), dense()])
def test_dynamic_quantization_is_nothing_we_emit(given: Work, tmp_path: Path) -> None:
    dynamic = {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "DynamicQuantizeMatMul"}
    (tmp_path / "before.onnx").write_bytes(given.onnx)
    quantize_dynamic(tmp_path / "before.onnx", tmp_path / "after.onnx")
    assert dynamic & set(operators((tmp_path / "after.onnx").read_bytes()))
    int8 = build_int8(given)
    assert not dynamic & set(operators(int8))
    assert not dynamic & set(operators(_optimized(int8, EXTENDED)))


def test_all_element_types_of_an_int8_graph_are_known_before_it_runs() -> None:
    stored = onnx.load_from_string(build_int8(convolutional())).graph.initializer
    kinds = {tensor.data_type for tensor in stored}
    assert kinds == {TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32}
