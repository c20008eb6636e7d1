"""The stated false-alarm rate of drift alarms, and their power, by simulation with fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fleet.drift.alarms import AlarmChange, AlarmState, advance_alarm, judge_drift
from fleet.drift.profile import Profile, ReferenceProfile, count, numeric_reference

FEATURES = ("a", "b", "c", "d")


def reference_of(rng: np.random.Generator, size: int) -> ReferenceProfile:
    return ReferenceProfile(
        features=tuple(numeric_reference(name, rng.normal(size=size)) for name in FEATURES)
    )


def counted(reference: ReferenceProfile, values: NDArray[np.float64]) -> Profile:
    return {f.name: count(f, column) for f, column in zip(reference.features, values.T, strict=True)}


@pytest.mark.parametrize("samples", [30, 100, 500, 2000])
def test_without_drift_single_looks_exceed_the_rate_at_no_sample_size(samples: int) -> None:
    """500 looks that each might drift with 10 %, at the first look of one device, without a floor.

    Tolerance: four standard errors of 500 draws at 0.1, that is 10 % + 5.4 %.
    """
    rng = np.random.default_rng(samples)
    drifted = 0
    for _ in range(500):
        reference = reference_of(rng, 400)
        judged = judge_drift(
            reference,
            counted(reference, rng.normal(size=(samples, len(FEATURES)))),
            look=1,
            devices=1,
            false_alarm_rate=0.1,
            floor=0.0,
        )
        drifted += any(drift.drifted for drift in judged)
    assert drifted / 500 <= 0.1 + 4 * np.sqrt(0.1 * 0.9 / 500)


@pytest.mark.parametrize("samples", [30, 300])
def test_without_drift_a_fleet_watched_for_long_raises_no_more_than_the_rate(samples: int) -> None:
    """40 fleets of 5 devices, 20 looks each, at a rate of 10 % a fleet: 4 expected at the very most.

    Tolerance: more than 12 of 40 have a probability below 0.0002.
    """
    rng = np.random.default_rng(samples)
    alarmed = 0
    for _ in range(40):
        reference = reference_of(rng, 600)
        raised = False
        for _ in range(5):
            state = AlarmState()
            for number in range(1, 21):
                counts = counted(reference, rng.normal(size=(samples, len(FEATURES))))
                judged = judge_drift(
                    reference, counts, look=number, devices=5, false_alarm_rate=0.1, floor=0.0
                )
                state, change = advance_alarm(state, judged)
                raised = raised or change is AlarmChange.RAISED
        alarmed += raised
    assert alarmed <= 12


@pytest.mark.parametrize(("samples", "shift"), [(100, 1.5), (400, 0.8), (2000, 0.5)])
def test_a_shift_is_found_within_three_looks(samples: int, shift: float) -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        reference = reference_of(rng, 600)
        state = AlarmState()
        for _ in range(3):
            values = rng.normal(size=(samples, len(FEATURES)))
            values[:, 0] += shift
            judged = judge_drift(reference, counted(reference, values), look=state.looks + 1, devices=8)
            state, _ = advance_alarm(state, judged)
        assert state.raised == ("a",)


def test_a_trifle_stays_below_the_floor_however_certain() -> None:
    rng = np.random.default_rng(9)
    reference = reference_of(rng, 100_000)
    values = rng.normal(size=(100_000, len(FEATURES)))
    values[:, 0] += 0.1
    counts = counted(reference, values)
    assert judge_drift(reference, counts, look=1, devices=8, floor=0.0)[0].drifted
    assert not judge_drift(reference, counts, look=1, devices=8)[0].drifted
