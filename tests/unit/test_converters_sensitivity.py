"""What each layer loses in int8."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from converters.judging.sensitivity import (
    LayerError,
    cumulative_errors,
    layer_errors,
    most_sensitive_first,
    sqnr_db,
)
from converters.target import Work
from converters.targets.onnx_int8 import prepared
from tests.support.networks import convolutional, dense, with_a_bad_layer


def test_the_layer_that_is_to_blame_comes_first() -> None:
    errors = layer_errors(with_a_bad_layer())
    assert errors[0].name == "layer3"
    blame = {error.name: error.isolated_db or 0.0 for error in errors}
    assert blame["layer3"] < min(blame[name] for name in ("layer1", "layer2", "layer4")) - 10
    isolated = [error.isolated_db for error in errors]
    assert isolated == sorted(isolated, key=lambda each: each or 0.0)


def test_noise_adds_up_on_its_way() -> None:
    errors = {error.name: error for error in layer_errors(with_a_bad_layer())}
    along = [errors[f"layer{i}"].cumulative_db or 0.0 for i in range(1, 5)]
    assert along[0] > along[2] + 10  # the third layer's noise
    assert along[3] < along[0]
    total = 1 / sum(10 ** (-(e.isolated_db or 0.0) / 10) for e in errors.values())
    assert along[3] == pytest.approx(10 * np.log10(total), abs=3)  # independent noise: Lin et al. 2016


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (convolutional(), {"conv1", "depthwise", "pointwise", "dense"}),
        (dense(), {"dense1", "dense2", "dense3"}),
    ],
)
def test_every_quantized_layer_is_measured(network: Work, layers: set[str]) -> None:
    errors = layer_errors(network)
    assert {error.name for error in errors} == layers
    for error in errors:
        assert error.cumulative_db is not None
        assert error.isolated_db is not None
        assert 15 < error.cumulative_db < 70
        assert 15 < error.isolated_db < 90
    assert msgspec.json.decode(msgspec.json.encode(errors), type=tuple[LayerError, ...]) == errors


def test_without_quantization_there_is_no_noise() -> None:
    fp32 = prepared(dense().onnx).SerializeToString()
    found = cumulative_errors(fp32, fp32, dense().samples())
    assert found == {"dense1": None, "dense2": None, "dense3": None}
    assert sqnr_db(3.0, 0.0) is None


def test_the_noise_of_a_layer_without_a_signal_is_a_finite_number() -> None:
    loud = sqnr_db(0.0, 3.0)
    assert loud is not None
    assert np.isfinite(loud)
    assert loud < -1000


def test_layers_without_noise_are_the_last_to_be_kept() -> None:
    assert most_sensitive_first({"a": 40.0, "b": None, "c": 10.0}) == ("c", "a", "b")
