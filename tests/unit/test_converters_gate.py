"""The gate: what passes, and that it fails closed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from converters.judging.gate import DISCONTINUOUS_SHARE, Gate, check_parity, parity
from fleet.protocol.errors import AccuracyTooLow, ConversionFailed
from fleet.protocol.manifest import Evaluation


def _accuracy(value: float) -> Evaluation:
    return Evaluation("accuracy", value, 100)


@pytest.mark.parametrize(
    ("gate", "variant", "passes"),
    [
        (Gate(0.02, 0.9), 0.93, True),
        (Gate(0.02, 0.9), 0.92, False),
        (Gate(0.05, 0.94), 0.93, False),
        (Gate(0.02, 0.9), 0.99, True),
        (Gate(0.02), 0.93, True),
        (Gate(math.nan, 0.9), 0.95, False),
        (Gate(0.02, math.nan), 0.95, False),
        (Gate(0.02, 0.9), math.nan, False),
    ],
)
def test_the_gate_for_variants(gate: Gate, variant: float, passes: bool) -> None:
    if passes:
        gate.check_metric(_accuracy(variant), _accuracy(0.945))
    else:
        with pytest.raises(AccuracyTooLow):
            gate.check_metric(_accuracy(variant), _accuracy(0.945))


@pytest.mark.parametrize("minimum", [0.951, math.nan])
def test_the_gate_for_the_source_fails_closed(minimum: float) -> None:
    with pytest.raises(AccuracyTooLow):
        Gate(0.1, minimum).check_source(_accuracy(0.95))
    Gate(0.1, 0.95).check_source(_accuracy(0.95))
    Gate(0.1).check_source(_accuracy(0.1))


def test_parity_is_relative_to_the_great_answers_of_each_element() -> None:
    source = np.array([[100.0, 1.0], [0.5, 0.25]])
    assert parity(source + 0.01, source) == pytest.approx(0.01)
    assert parity(source + np.array([0.01, 0.0]), source) == pytest.approx(1e-4)


def test_a_few_samples_of_a_step_function_may_jump() -> None:
    source = np.zeros((200, 2))
    answers = source.copy()
    jumping = int(200 * DISCONTINUOUS_SHARE)
    answers[:jumping, 1] = 1.0
    assert parity(answers, source, discontinuous=True) == 0.0
    assert parity(answers, source) == 1.0
    answers[: jumping + 1, 1] = 1.0
    assert parity(answers, source, discontinuous=True) == 1.0


def test_other_shapes_and_numbers_that_are_none_do_not_pass() -> None:
    with pytest.raises(ConversionFailed, match="shape"):
        parity(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ConversionFailed):
        check_parity(parity(np.full((3, 1), np.nan), np.zeros((3, 1))), 1e-4)
    with pytest.raises(ConversionFailed):
        check_parity(1.1e-4, 1e-4)
    check_parity(1e-4, 1e-4)
