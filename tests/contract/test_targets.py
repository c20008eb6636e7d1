"""The contract of targets: what each must do before it may stand in the registry."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.judging.variant import answer
from converters.target import Target, Work
from converters.targets import TARGETS
from fleet.protocol.errors import ConversionFailed
from tests.support.digits import digits_work, fitted_model, training_and_held_out

INPUT = "input"


@pytest.fixture(params=list(TARGETS.values()), ids=list(TARGETS))
def target(request: pytest.FixtureRequest) -> Target:
    """Each target of the registry in turn."""
    given: Target = request.param
    return given


@cache
def _built(name: str) -> bytes:
    return TARGETS[name].build(digits_work())


def _answers(target: Target, inputs: Inputs) -> NDArray[np.float32]:
    return answer(target.runtime.open(_built(target.name), digits_work().signature), inputs)


def test_its_name_says_runtime_and_precision(target: Target) -> None:
    family, precision = target.name.split("-")
    assert precision == target.precision
    assert target.file_name == f"model.{family}"
    assert TARGETS[target.name] is target


def test_the_same_work_gives_the_same_bytes(target: Target) -> None:
    assert target.build(digits_work()) == _built(target.name)


def test_it_answers_as_the_model_does(target: Target) -> None:
    _, held_out = training_and_held_out()
    answers = _answers(target, {INPUT: held_out.features})
    expected = fitted_model().predict_proba(held_out.features.reshape(len(held_out), -1))
    assert answers.shape == expected.shape
    assert answers.dtype == np.float32
    assert float((answers.argmax(axis=1) == held_out.labels).mean()) > 0.94
    if target.parity_tolerance is not None:
        assert np.abs(answers - expected).max() <= target.parity_tolerance


@pytest.mark.parametrize("batch", [1, 7])
def test_the_batch_is_free(target: Target, batch: int) -> None:
    _, held_out = training_and_held_out()
    whole = _answers(target, {INPUT: held_out.features[:14]})
    session = target.runtime.open(_built(target.name), digits_work().signature)
    parts = [session.run({INPUT: held_out.features[i : i + batch]}) for i in range(0, 14, batch)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_its_footprint_is_read_from_the_bytes(target: Target) -> None:
    footprint = target.runtime.footprint(_built(target.name), digits_work().signature)
    assert footprint.runtimes[0].name == target.runtime.name
    assert list(footprint.operators) == sorted(set(footprint.operators))
    assert footprint.operators
    weights_bytes = 64 * 64 // 2  # of four bits each, at the least
    assert weights_bytes < footprint.peak_memory_bytes < 10 * len(_built(target.name))


def test_rounding_moves_its_answers_by_little_and_the_same_for_the_same_seed(target: Target) -> None:
    training, _ = training_and_held_out()
    golden = {INPUT: training.features[:8]}
    spread = target.runtime.rounding(_built(target.name), digits_work().signature, golden, 3)
    assert 0.0 < spread < 0.025
    assert target.runtime.rounding(_built(target.name), digits_work().signature, golden, 3) == spread


def test_what_is_no_graph_is_refused(target: Target) -> None:
    for broken in (b"", b"not a model", digits_work().onnx[: len(digits_work().onnx) // 2]):
        with pytest.raises(ConversionFailed):
            target.build(Work(broken, digits_work().signature, digits_work().calibration))
    for broken in (b"", b"not a model", _built(target.name)[: len(_built(target.name)) // 2]):
        with pytest.raises(ConversionFailed):
            target.runtime.open(broken, digits_work().signature)


def test_a_target_that_needs_samples_says_so(target: Target) -> None:
    without = Work(digits_work().onnx, digits_work().signature)
    if target.calibrated:
        with pytest.raises(ConversionFailed, match="sample"):
            target.build(without)
    else:
        assert target.build(without)
