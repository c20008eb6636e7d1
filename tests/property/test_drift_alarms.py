"""What drift alarms promise: e-values of 1 at most on average, the stated rate, and power, by fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from fleet.drift.alarms import AlarmChange, AlarmState, advance_alarm, discovery_threshold, judge_drift
from fleet.drift.allowance import calibrated
from fleet.drift.evidence import find
from fleet.drift.profile import (
    FeatureCounts,
    FeatureReference,
    Profile,
    ReferenceProfile,
    count,
    numeric_reference,
)
from fleet.drift.splits import band

FEATURES = ("a", "b", "c", "d")
RATE = 0.05


def reference_of(rng: np.random.Generator, size: int) -> ReferenceProfile:
    features = tuple(numeric_reference(name, rng.normal(size=size)) for name in FEATURES)
    return calibrated(ReferenceProfile(features))


def counted(reference: ReferenceProfile, values: NDArray[np.float64]) -> Profile:
    return {f.name: count(f, column) for f, column in zip(reference.features, values.T, strict=True)}


@settings(max_examples=60, derandomize=True, deadline=None)
@given(part=st.integers(0, 400), rest=st.integers(0, 400), size=st.integers(1, 60), where=st.floats(0.0, 1.0))
def test_for_any_share_in_the_band_the_e_value_is_one_at_most_on_average(
    part: int, rest: int, size: int, where: float
) -> None:
    """Exactly, by summing over every count that can come: categories of one and another, none missing."""
    reference = FeatureReference("c", (part + 1, rest, 0), allowance=3.0)
    normal = band(reference, 1)
    share = math.sin(normal.low[0] + where * (normal.high[0] - normal.low[0])) ** 2
    other = math.sin(normal.low[1]) ** 2 <= 1.0 - share <= math.sin(normal.high[1]) ** 2
    if not other:  # the category beside it is out of its band then: that is drift
        return
    e_values = [10.0 ** find(reference, FeatureCounts([k, size - k, 0]), 1).evidence for k in range(size + 1)]
    mean = float(np.dot(stats.binom.pmf(np.arange(size + 1), size, share), e_values))
    assert mean <= 1.0 + 1e-9


@given(st.lists(st.floats(-15, 15), max_size=30), st.integers(1, 200))
def test_discoveries_are_those_of_e_bh(evidence: list[float], watched: int) -> None:
    """Against the definition: the largest r for which r of them are at least K / (a r)."""
    count_watched = max(1, watched, len(evidence))
    ranks = [
        r
        for r in range(1, len(evidence) + 1)
        if sum(e >= math.log10(count_watched / (RATE * r)) for e in evidence) >= r
    ]
    expected = math.log10(count_watched / (RATE * max(ranks, default=1)))
    assert discovery_threshold(evidence, watched, RATE) == pytest.approx(expected)


@pytest.mark.parametrize("samples", [30, 300])
def test_without_drift_a_fleet_raises_no_alarm(samples: int) -> None:
    """10 fleets of 2 devices, 6 looks each, at a rate of 5 % a fleet.

    Tolerance: more than 3 of 10 have a probability of 0.001. ``make bench-drift`` draws more.
    """
    rng = np.random.default_rng(samples)
    alarmed = 0
    for _ in range(10):
        reference = reference_of(rng, 300)
        states = [AlarmState()] * 2
        changes = []
        for _ in range(6):
            for device, state in enumerate(states):
                counts = counted(reference, rng.normal(size=(samples, len(FEATURES))))
                others = [e for n, s in enumerate(states) if n != device for e in s.evidence.values()]
                judged = judge_drift(reference, counts, state, others=others, watched=8)
                states[device], change = advance_alarm(state, judged)
                changes.append(change)
        alarmed += AlarmChange.RAISED in changes
    assert alarmed <= 3


@pytest.mark.parametrize(
    ("samples", "shift", "looks"), [(30, 1.5, 6), (100, 1.0, 4), (300, 0.7, 4), (1000, 0.5, 4), (300, 2.0, 2)]
)
def test_a_shift_is_found_soon_and_on_its_feature_alone(samples: int, shift: float, looks: int) -> None:
    rng = np.random.default_rng(8)
    for _ in range(3):
        reference = reference_of(rng, 1000)
        state = AlarmState()
        for _ in range(looks):
            values = rng.normal(size=(samples, len(FEATURES)))
            values[:, 0] += shift
            judged = judge_drift(reference, counted(reference, values), state, watched=32)
            state, _ = advance_alarm(state, judged)
        assert state.raised == ("a",)


def test_after_a_long_calm_drift_is_found_as_well_and_its_end_too() -> None:
    rng, state = np.random.default_rng(5), AlarmState()
    reference = reference_of(rng, 1000)
    raised = []
    for number in range(120):
        values = rng.normal(size=(200, len(FEATURES)))
        values[:, 1] += 1.0 if 80 <= number < 100 else 0.0
        judged = judge_drift(reference, counted(reference, values), state, watched=32)
        state, change = advance_alarm(state, judged)
        raised += [(number, change)] if change is not AlarmChange.NONE else []
    assert [change for _, change in raised] == [AlarmChange.RAISED, AlarmChange.CLEARED]
    assert 81 <= raised[0][0] <= 84
    assert 101 <= raised[1][0] <= 104


def test_a_trifle_is_no_drift_however_certain() -> None:
    rng = np.random.default_rng(9)
    reference = reference_of(rng, 100_000)
    values = rng.normal(size=(100_000, len(FEATURES)))
    values[:, 0] += 0.1
    judged = judge_drift(reference, counted(reference, values), AlarmState())
    assert stats.norm.sf(judged[0].distance * math.sqrt(2 * 50_000)) < 1e-9  # certain it is
    assert not judged[0].drifted
