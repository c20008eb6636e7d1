"""The accuracy gate: what passes, and that it fails closed."""

from __future__ import annotations

import math

import pytest

from converters.gate import AccuracyGate
from fleet.protocol.errors import AccuracyTooLow
from fleet.protocol.manifest import Evaluation


@pytest.mark.parametrize(
    ("gate", "int8", "passes"),
    [
        (AccuracyGate(0.9, 0.02), 0.93, True),
        (AccuracyGate(0.9, 0.02), 0.92, False),
        (AccuracyGate(0.94, 0.05), 0.93, False),
        (AccuracyGate(0.9, 0.02), 0.99, True),
        (AccuracyGate(0.9, math.nan), 0.95, False),
        (AccuracyGate(math.nan, 0.02), 0.95, False),
    ],
)
def test_the_gate_for_quantized_variants(gate: AccuracyGate, int8: float, passes: bool) -> None:
    def check() -> None:
        gate.check_quantized(Evaluation(int8, 100), Evaluation(0.945, 100))

    if passes:
        check()
    else:
        with pytest.raises(AccuracyTooLow):
            check()


@pytest.mark.parametrize("minimum", [0.951, math.nan])
def test_the_gate_for_fp32_fails_closed(minimum: float) -> None:
    with pytest.raises(AccuracyTooLow):
        AccuracyGate(minimum, 0.1).check_fp32(Evaluation(0.95, 100))
    AccuracyGate(0.95, 0.1).check_fp32(Evaluation(0.95, 100))
