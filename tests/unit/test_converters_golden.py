"""Golden inputs: they cover the classes, and their tolerance lets kernels differ but no model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import converters.golden
from converters.evaluate import answer
from converters.golden import choose_golden_inputs, expected_outputs
from converters.quantize import quantize_int8
from tests.support.digits import fitted_model, training_and_held_out


def _model(seed: int = 0) -> bytes:
    return fitted_model(seed=seed)[1]


@cache
def _int8() -> bytes:
    return quantize_int8(_model(), training_and_held_out()[0].features)


@cache
def _golden() -> NDArray[np.float32]:
    training, held_out = training_and_held_out()
    return choose_golden_inputs(held_out, answer(_model(), held_out.features), training.features)


def test_golden_inputs_cover_every_class_and_the_corners() -> None:
    training, held_out = training_and_held_out()
    probabilities = answer(_model(), held_out.features)
    golden = choose_golden_inputs(held_out, probabilities, training.features)
    np.testing.assert_array_equal(golden[0], training.features.min(axis=0))
    np.testing.assert_array_equal(golden[1], training.features.max(axis=0))
    classes = answer(_model(), golden[3:]).argmax(axis=1)
    assert classes.tolist() == list(range(10))  # each class by an input that is answered rightly
    surest = answer(_model(), golden[2:3]).max()
    assert surest == pytest.approx(probabilities.max(), abs=1e-6)


def test_golden_inputs_stay_within_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    training, held_out = training_and_held_out()
    probabilities = answer(_model(), held_out.features)
    for limit, count in ((5 * 256, 5), (1, 1)):
        monkeypatch.setattr(converters.golden, "MAX_GOLDEN_SIZE_BYTES", limit)
        assert len(choose_golden_inputs(held_out, probabilities, training.features)) == count


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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("change", [_one_weight_less, lambda _: _model(seed=1)])
def test_the_tolerance_is_too_tight_for_a_changed_model(
    precision: str, change: Callable[[bytes], bytes]
) -> None:
    model = _model() if precision == "fp32" else _int8()
    expected = expected_outputs(model, _golden(), seed=0)
    assert np.abs(answer(change(model), _golden()) - expected.outputs).max() > expected.tolerance


def test_wrong_scales_fail_the_self_test() -> None:
    expected = expected_outputs(_int8(), _golden(), seed=0)
    assert np.abs(answer(_wrong_scales(_int8()), _golden()) - expected.outputs).max() > expected.tolerance


def test_the_tolerance_holds_for_other_kernels_and_is_about_the_same_for_every_seed() -> None:
    golden = _golden()
    for model, greatest in ((_model(), 1e-3), (_int8(), 0.05)):
        tolerances = [expected_outputs(model, golden, seed=seed).tolerance for seed in range(4)]
        assert max(tolerances) < min(3 * min(tolerances), greatest)
        expected = expected_outputs(model, golden, seed=0)
        for optimize in (True, False):
            alone = [answer(model, golden[i : i + 1], optimize=optimize) for i in range(len(golden))]
            assert np.abs(np.concatenate(alone) - expected.outputs).max() <= min(tolerances)
