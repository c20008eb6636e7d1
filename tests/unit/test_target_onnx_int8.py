"""Static int8: what is quantized, what stays float, and from which ranges."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import checker, helper, numpy_helper

from converters.data.samples import evenly_spaced
from converters.graphs.calibration import MAX_SAMPLES
from converters.target import CalibrationMethod, Work
from converters.targets.onnx_int8 import build
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import convolutional, dense, operators, relative_error, work


def _weights(model: bytes) -> dict[str, NDArray[np.int8]]:
    tensors = onnx.load_from_string(model).graph.initializer
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    return {name: value for name, value in values.items() if value.dtype == np.int8 and value.ndim > 1}


def _scale(model: bytes, tensor: str) -> float:
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer}
    return float(stored[f"{tensor}_scale"])


def _as_run(model: bytes) -> list[str]:
    """Return the operators that are left after onnxruntime has fused what it can for this processor."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "run.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return operators(Path(options.optimized_model_filepath).read_bytes())


@pytest.mark.parametrize("network", [convolutional, dense])
@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_answers_stay_close_to_float(network: object, method: CalibrationMethod) -> None:
    given = replace(convolutional() if network is convolutional else dense(), method=method)
    int8 = build(given)
    checker.check_model(onnx.load_from_string(int8), full_check=True)
    assert relative_error(int8, given) < 0.04


@pytest.mark.parametrize(("given", "layers"), [(convolutional(), 4), (dense(), 3)])
def test_all_weights_are_int8_of_seven_bits_with_a_scale_for_each_channel(given: Work, layers: int) -> None:
    int8 = build(given)
    weights = _weights(int8)
    assert len(weights) == layers
    for name, values in weights.items():
        assert 60 <= np.abs(values).max() <= 64  # 2 · 255 · 64 fits into 16 bits
        per_channel = np.abs(values.reshape(len(values), -1)).max(axis=1)
        per_column = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
        assert min(per_channel.min(), per_column.min()) >= 0
        assert (per_channel >= 60).all() or (per_column >= 60).all(), name


def test_preprocessing_stays_float() -> None:
    names = operators(build(dense()))
    assert names.index("Sub") < names.index("Div") < names.index("QuantizeLinear") < names.index("Gemm")


def test_a_convolutional_network_runs_in_integers_from_its_first_convolution_to_its_last_product() -> None:
    run = _as_run(build(convolutional()))
    assert run.count("QLinearConv") == 3
    assert {"QLinearAdd", "QLinearGlobalAveragePool", "QGemm", "MaxPool"} <= set(run)
    assert not {"Conv", "FusedConv", "Gemm", "Add", "Relu", "BatchNormalization"} & set(run)
    assert run.count("QuantizeLinear") == 1
    assert run[0] == "QuantizeLinear"


def test_a_dense_network_runs_in_integers_too() -> None:
    run = _as_run(build(dense()))
    assert run.count("QGemm") == 3
    assert not {"Gemm", "MatMul"} & set(run)


def test_layers_that_are_to_stay_float_do() -> None:
    given = replace(convolutional(), keep_float=frozenset({"depthwise", "dense"}))
    int8 = build(given)
    assert len(_weights(int8)) == 2
    assert "k2_folded" in {t.name for t in onnx.load_from_string(int8).graph.initializer}
    assert relative_error(int8, given) < relative_error(build(convolutional()), given)


def test_nothing_to_quantize_is_refused() -> None:
    relu = work(
        [helper.make_node("Relu", ["x"], ["y"])],
        {},
        takes=(4,),
        gives=(4,),
        samples=np.eye(4, dtype=np.float32),
    )
    with pytest.raises(ConversionFailed, match="change nothing"):
        build(relu)
    every = frozenset({"conv1", "depthwise", "pointwise", "dense"})
    with pytest.raises(ConversionFailed, match="all of them are to stay float"):
        build(replace(convolutional(), keep_float=every))


def test_at_most_512_samples_are_used_and_they_are_evenly_spaced() -> None:
    samples = np.random.RandomState(2).standard_normal((3 * MAX_SAMPLES, 48)).astype(np.float32)
    many = replace(dense(), calibration={"x": samples})
    few = replace(dense(), calibration=evenly_spaced({"x": samples}, MAX_SAMPLES))
    assert build(many) == build(few)


def _with_outlier() -> Work:
    """Return one dense layer whose calibration samples have one value a hundred times the others."""
    random = np.random.RandomState(3)
    samples = random.standard_normal((512, 64)).astype(np.float32)
    samples[17, 3] = 400.0
    weights = {"w": random.standard_normal((64, 4)).astype(np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "only")
    return work([node], weights, takes=(64,), gives=(4,), samples=samples)


def test_percentile_and_entropy_clip_what_min_max_stretches_its_range_for() -> None:
    given = _with_outlier()
    widths = {
        method: _scale(build(replace(given, method=method)), "x")
        for method in ("minmax", "percentile", "entropy")
    }
    assert widths["minmax"] > 1.5  # 400 in 255 steps
    assert widths["percentile"] < 0.1 * widths["minmax"]
    assert widths["entropy"] < 0.2 * widths["minmax"]


def test_values_that_are_not_finite_are_refused() -> None:
    given = _with_outlier()
    samples = given.samples()["x"].copy()
    samples[5, 5] = np.inf
    with pytest.raises(ConversionFailed, match="'x' has values"):
        build(replace(given, calibration={"x": samples}))


@pytest.mark.parametrize(
    ("transposed", "alpha", "beta", "bias"),
    [
        (0, 1.0, 1.0, (6,)),
        (1, 1.0, 1.0, (1, 6)),
        (1, 0.25, 1.0, (6,)),
        (0, 1.0, 3.0, (6,)),
        (1, -2.0, 0.5, (1, 6)),
        (0, 2.0, 1.0, None),
    ],
)
def test_every_form_of_gemm_keeps_its_meaning(
    transposed: int, alpha: float, beta: float, bias: tuple[int, ...] | None
) -> None:
    random = np.random.RandomState(4)
    constants = {"w": random.standard_normal((6, 32) if transposed else (32, 6)).astype(np.float32)}
    if bias is not None:
        constants["b"] = (10 * random.standard_normal(bias)).astype(np.float32)
    names = ["x", *constants]
    node = helper.make_node("Gemm", names, ["y"], "only", transB=transposed, alpha=alpha, beta=beta)
    samples = random.standard_normal((256, 32)).astype(np.float32)
    given = work([node], constants, takes=(32,), gives=(6,), samples=samples)
    assert relative_error(build(given), given) < 0.02
