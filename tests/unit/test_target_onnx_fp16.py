"""float16: where it begins and ends, and that nothing overflows unseen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from converters.target import Work
from converters.targets.onnx_fp16 import build
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import answers, convolutional, dense, operators, relative_error, work


def _constants(model: bytes) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer}


@pytest.mark.parametrize("given", [convolutional(), dense()])
def test_weights_take_half_the_bytes_and_inputs_and_outputs_stay_float32(given: Work) -> None:
    fp16 = build(given)
    model = onnx.load_from_string(fp16)
    checker.check_model(model, full_check=True)
    ends = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    assert relative_error(fp16, given) < 1e-3
    products = [n for n in model.graph.node if n.op_type in {"Conv", "Gemm", "MatMul"}]
    stored = _constants(fp16)
    assert {stored[node.input[1]].dtype for node in products} == {np.dtype(np.float16)}
    assert len(fp16) < 0.6 * len(given.onnx)


def test_preprocessing_stays_float32() -> None:
    fp16 = build(dense())
    assert operators(fp16)[:3] == ["Sub", "Div", "Cast"]
    assert _constants(fp16)["mean"].dtype == np.float32


def test_one_cast_leads_in_and_one_leads_out() -> None:
    assert operators(build(convolutional())).count("Cast") == 2


def _layered(*middle: onnx.NodeProto, **constants: NDArray[np.float32]) -> Work:
    """Return a dense layer, some nodes from ``h`` to ``m``, and another dense layer."""
    random = np.random.RandomState(0)
    weights = {name: random.standard_normal((8, 8)).astype(np.float32) for name in ("w1", "w2")}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        *middle,
        helper.make_node("MatMul", ["m", "w2"], ["y"], "last"),
    ]
    samples = random.standard_normal((40, 8)).astype(np.float32)
    return work(nodes, {**weights, **constants}, takes=(8,), gives=(8,), samples=samples)


def test_sums_that_overflow_inside_stay_float32() -> None:
    mean = helper.make_node("ReduceMean", ["h"], ["s"], "mean", axes=[1], keepdims=1)
    given = _layered(mean, helper.make_node("Sub", ["h", "s"], ["m"], "centre"))
    fp16 = build(given)
    assert operators(fp16) == ["Cast", "MatMul", "Cast", "ReduceMean", "Cast", "Sub", "MatMul", "Cast"]
    assert relative_error(fp16, given) < 2e-3


def test_a_constant_that_float16_cannot_hold_is_refused_by_node_and_value() -> None:
    great = np.full(8, 1e5, dtype=np.float32)
    nodes = [helper.make_node("Mul", ["h", "great"], ["m"], "amplify")]
    with pytest.raises(ConversionFailed, match=r"'amplify' \(Mul\).*100000") as refused:
        build(_layered(*nodes, great=great))
    assert "fp32" in refused.value.remedy


def test_an_activation_that_float16_cannot_hold_is_refused_by_node_and_value() -> None:
    factor = np.full(8, 3e4, dtype=np.float32)
    given = _layered(helper.make_node("Mul", ["h", "factor"], ["m"], "amplify"), factor=factor)
    with pytest.raises(ConversionFailed, match=r"'amplify' \(Mul\) has values up to") as refused:
        build(given)
    assert "fp32" in refused.value.remedy
    build(replace(given, calibration=None))  # without samples nothing is known of activations


def test_an_input_that_float16_cannot_hold_is_refused() -> None:
    given = replace(dense(), keep_float=frozenset())
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "only")
    samples = np.full((4, 8), 7e4, dtype=np.float32)
    direct = work([node], {"w": np.eye(8, dtype=np.float32)}, takes=(8,), gives=(8,), samples=samples)
    with pytest.raises(ConversionFailed, match="'only'"):
        build(direct)
    large = {"x": given.samples()["x"] * 1000}  # what the scaler brings down again may be large
    assert np.abs(large["x"]).max() > 65504
    scaled = replace(given, calibration={"x": large["x"] / 1000})
    assert build(scaled) == build(given)


def test_a_bound_beyond_float16_bounds_nothing() -> None:
    bounds = {"low": np.float32(0.0), "high": np.float32(3.4e38)}
    arrays = {name: np.asarray(value) for name, value in bounds.items()}
    given = _layered(helper.make_node("Clip", ["h", "low", "high"], ["m"], "clip"), **arrays)
    assert relative_error(build(given), given) < 2e-3


def test_a_tensor_that_both_precisions_take_is_cast_once() -> None:
    power = helper.make_node("Pow", ["h", "two"], ["p"], "square")
    mean = helper.make_node("ReduceMean", ["h"], ["s"], "mean", axes=[1], keepdims=1)
    both = [
        helper.make_node("Add", ["p", "s"], ["a"], "add"),
        helper.make_node("Mul", ["a", "h"], ["m"], "mul"),
    ]
    given = _layered(power, mean, *both, two=np.full(1, 2, dtype=np.float32))
    fp16 = build(given)
    taken = [n.input[0] for n in onnx.load_from_string(fp16).graph.node if n.op_type == "Cast"]
    assert len(taken) == len(set(taken))
    assert np.isfinite(answers(fp16, given)).all()


def test_a_model_without_products_is_refused() -> None:
    with pytest.raises(ConversionFailed, match="change nothing"):
        build(work([helper.make_node("Relu", ["x"], ["y"])], {}, takes=(4,), gives=(4,)))
