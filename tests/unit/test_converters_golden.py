"""Golden inputs: they cover the classes, and their tolerance lets kernels differ but no model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import converters.judging.golden
from converters.data.samples import Inputs, Samples, samples_of
from converters.judging.golden import Expected, choose_golden_inputs, expected_outputs
from converters.runtimes.onnx import OnnxSession
from converters.targets import TARGETS
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Signature, Task, Tensor
from tests.support.digits import digits_source, digits_work, training_and_held_out

SIGNATURE = digits_source().signature


@cache
def _model(target: str, seed: int = 0) -> bytes:
    return TARGETS[target].build(digits_work(seed=seed))


def _answer(target: str, model: bytes, golden: Inputs) -> NDArray[Any]:
    return TARGETS[target].runtime.open(model, SIGNATURE).run(golden)


@cache
def _golden() -> Inputs:
    training, held_out = training_and_held_out()
    inputs = {"input": held_out.features}
    answers = digits_source().answer(inputs)
    return choose_golden_inputs(
        SIGNATURE, inputs, answers, samples_of(held_out), {"input": training.features}
    )


def _expected(target: str, seed: int = 0) -> Expected:
    runtime, model = TARGETS[target].runtime, _model(target)
    return expected_outputs(runtime, runtime.open(model, SIGNATURE), model, SIGNATURE, _golden(), seed=seed)


def test_golden_inputs_cover_every_class_and_the_corners() -> None:
    training, held_out = training_and_held_out()
    golden = _golden()["input"]
    np.testing.assert_array_equal(golden[0], training.features.min(axis=0))
    np.testing.assert_array_equal(golden[1], training.features.max(axis=0))
    answers = digits_source().answer({"input": golden})
    assert answers[3:].argmax(axis=1).tolist() == list(range(10))  # each class by a right answer
    surest = digits_source().answer({"input": held_out.features}).max()
    assert answers[2].max() == pytest.approx(surest, abs=1e-6)


def test_golden_inputs_stay_within_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, count in ((5 * 256, 5), (1, 1)):
        monkeypatch.setattr(converters.judging.golden, "MAX_GOLDEN_SIZE_BYTES", limit)
        _golden.cache_clear()
        assert len(_golden()["input"]) == count
    _golden.cache_clear()


def _chosen(task: Task, answers: NDArray[Any], inputs: Inputs, signature: Signature | None = None) -> Inputs:
    tensors = (Tensor("x", "float32", (-1, 1)),)
    signature = signature or Signature(tensors, (Tensor("y", "float32", (-1, answers.shape[1])),), task=task)
    return choose_golden_inputs(signature, inputs, answers, Samples({"features": inputs["x"]}), inputs)


def test_other_tasks_are_covered_from_the_least_answer_to_the_greatest() -> None:
    x = np.random.RandomState(0).permutation(100).astype(np.float32)[:, None]
    chosen = _chosen("regression", 2 * x, {"x": x})["x"][2:].ravel()
    assert chosen.tolist() == [0, 14, 28, 42, 56, 70, 84, 99]
    chosen = _chosen("anomaly", -x, {"x": x})["x"][2:].ravel()
    assert chosen.tolist() == [0, 14, 28, 42, 56, 70, 84, 99]
    distances = np.abs(x - np.array([[10.0, 50.0, 90.0]]))
    clusters = np.abs(_chosen("clustering", distances, {"x": x})["x"][3:] - np.array([[10.0, 50.0, 90.0]]))
    assert clusters.argmin(axis=1).tolist() == [0, 1, 2]


def test_missing_values_and_text_are_covered_where_the_model_takes_them() -> None:
    x = np.arange(20, dtype=np.float32)[:, None]
    x[7] = np.nan
    words = np.array([[f"word {i}"] for i in range(20)], dtype=object)
    signature = Signature(
        (Tensor("x", "float32", (-1, 1), missing=True), Tensor("words", "str", (-1, 1))),
        (Tensor("y", "float32", (-1, 1)),),
        task="regression",
    )
    answers = np.arange(20, dtype=np.float32)[:, None]
    golden = _chosen("regression", answers, {"x": x, "words": words}, signature)
    assert golden["x"][:2].ravel().tolist() == [0.0, 19.0]
    assert np.isnan(golden["x"][2, 0])
    assert golden["words"].ravel().tolist()[:4] == ["word 0", "word 19", "word 7", "word 0"]


def _wrong_scales(model: bytes) -> bytes:
    """Return the model with the weight scales of one layer 5 % off, as after a broken conversion."""
    changed = onnx.load_from_string(model)
    scales = next(t for t in changed.graph.initializer if t.name.endswith("_scale") and len(t.dims) == 1)
    off = np.asarray(numpy_helper.to_array(scales) * 1.05, dtype=np.float32)
    scales.CopyFrom(numpy_helper.from_array(off, scales.name))
    return bytes(changed.SerializeToString())


def _one_weight_less(model: bytes) -> bytes:
    """Return the model with the greatest weight of its last layer set to zero."""
    changed = onnx.load_from_string(model)
    matrices = [
        tensor for tensor in changed.graph.initializer if len(tensor.dims) == 2 and tensor.dims[0] > 1
    ]
    values = numpy_helper.to_array(matrices[-1]).copy()
    values.flat[np.abs(values).argmax()] = 0
    matrices[-1].CopyFrom(numpy_helper.from_array(values, matrices[-1].name))
    return bytes(changed.SerializeToString())


@pytest.mark.parametrize("target", ["onnx-fp32", "onnx-int8"])
@pytest.mark.parametrize("change", [_one_weight_less, None])
def test_the_tolerance_is_too_tight_for_a_changed_model(
    target: str, change: Callable[[bytes], bytes] | None
) -> None:
    expected = _expected(target)
    changed = change(_model(target)) if change else _model(target, seed=1)
    assert np.abs(_answer(target, changed, _golden()) - expected.outputs).max() > expected.tolerance


@pytest.mark.parametrize("target", ["tflite-fp32", "tflite-int8", "onnx-fp16", "onnx-int4", "ort-fp32"])
def test_another_model_fails_every_variants_self_test(target: str) -> None:
    expected = _expected(target)
    other = _answer(target, _model(target, seed=1), _golden())
    assert np.abs(other - expected.outputs).max() > expected.tolerance


def test_wrong_scales_fail_the_self_test() -> None:
    expected = _expected("onnx-int8")
    changed = _answer("onnx-int8", _wrong_scales(_model("onnx-int8")), _golden())
    assert np.abs(changed - expected.outputs).max() > expected.tolerance


@pytest.mark.parametrize(("target", "greatest"), [("onnx-fp32", 1e-3), ("onnx-int8", 0.05)])
def test_the_tolerance_holds_for_other_kernels_and_is_about_the_same_for_every_seed(
    target: str, greatest: float
) -> None:
    tolerances = [_expected(target, seed).tolerance for seed in range(4)]
    assert max(tolerances) < min(3 * min(tolerances), greatest)
    expected = _expected(target).outputs
    golden = _golden()["input"]
    for optimize in (True, False):
        session = OnnxSession(_model(target), SIGNATURE, optimize=optimize)
        alone = [session.run({"input": golden[i : i + 1]}) for i in range(len(golden))]
        assert np.abs(np.concatenate(alone) - expected).max() <= min(tolerances)


def test_a_model_that_no_tolerance_can_test_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters.judging.golden, "MAX_TOLERANCE", _expected("onnx-int8").tolerance * 0.9)
    with pytest.raises(ConversionFailed, match="Rounding alone"):
        _expected("onnx-int8")
