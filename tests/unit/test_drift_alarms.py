"""Drift alarms: thresholds, and how an alarm is raised, held and cleared."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from fleet.drift.alarms import (
    AlarmChange,
    AlarmState,
    FeatureDrift,
    advance_alarm,
    dkw_epsilon,
    drift_threshold,
    judge_drift,
)
from fleet.drift.profile import (
    FeatureCounts,
    ReferenceProfile,
    categorical_reference,
    count,
    numeric_reference,
)
from fleet.protocol.errors import InvalidMessage

RNG = np.random.default_rng(1)
BRIGHTNESS = numeric_reference("input.mean", RNG.normal(0.0, 1.0, 1000))
CLASS = categorical_reference("output.class", RNG.integers(0, 10, 1000), 10)
REFERENCE = ReferenceProfile(features=(BRIGHTNESS, CLASS))


def look(distance: float, *, feature: str = "input.mean", samples: int = 500) -> FeatureDrift:
    """Return a feature at a distance from the reference, under a threshold of 0.2."""
    return FeatureDrift(feature, samples, distance, 0.2, 0.0, 0.0, drifted=samples >= 30 and distance > 0.2)


def advance(*distances: float, state: AlarmState | None = None) -> tuple[AlarmState, list[AlarmChange]]:
    state, changes = state or AlarmState(), []
    for distance in distances:
        state, change = advance_alarm(state, [look(distance)])
        changes.append(change)
    return state, changes


def test_the_bound_of_one_sample_is_massarts() -> None:
    assert dkw_epsilon(100, 0.05) == pytest.approx(math.sqrt(math.log(40.0) / 200.0))
    assert dkw_epsilon(0, 0.05) == math.inf


def test_the_threshold_falls_with_samples_and_rises_with_everything_that_is_looked_at() -> None:
    def at(n: int = 500, k: int = 1, features: int = 4, devices: int = 8, floor: float = 0.0) -> float:
        return drift_threshold(1000, n, look=k, features=features, devices=devices, floor=floor)

    assert at(n=2000) < at(n=500) < at(n=30)
    assert at(k=1) < at(k=2) < at(k=100)
    assert at(features=4) < at(features=16)
    assert at(devices=8) < at(devices=1000)
    assert at(n=10**9, floor=0.3) == 0.3
    assert at(n=0) == math.inf


def test_the_same_distribution_does_not_drift_and_another_does() -> None:
    rng = np.random.default_rng(2)
    for mean, drifted in [(0.0, False), (1.5, True)]:
        counts = {
            "input.mean": count(BRIGHTNESS, rng.normal(mean, 1.0, 400)),
            "output.class": count(CLASS, rng.integers(0, 10, 400)),
        }
        judged = {d.feature: d for d in judge_drift(REFERENCE, counts, look=1, devices=8)}
        assert judged["input.mean"].drifted is drifted
        assert judged["output.class"].drifted is False
        assert judged["input.mean"].samples == 400


def test_values_that_go_missing_are_drift() -> None:
    values = np.where(np.arange(400) % 2 == 0, np.nan, np.random.default_rng(3).normal(size=400))
    (judged,) = judge_drift(REFERENCE, {"input.mean": count(BRIGHTNESS, values)}, look=1, devices=8)
    assert judged.drifted
    assert judged.samples == 400


def test_too_few_values_say_nothing() -> None:
    far = {"input.mean": count(BRIGHTNESS, np.full(29, 9.0))}
    (judged,) = judge_drift(REFERENCE, far, look=1, devices=1, false_alarm_rate=0.9)
    assert not judged.is_judged
    assert not judged.drifted
    empty = {"input.mean": FeatureCounts.empty(BRIGHTNESS)}
    assert not judge_drift(REFERENCE, empty, look=1, devices=1)[0].drifted


def test_what_the_reference_does_not_know_is_left_out_and_other_layouts_are_refused() -> None:
    assert judge_drift(REFERENCE, {"input.colour": FeatureCounts(cells=[1])}, look=1, devices=1) == []
    with pytest.raises(InvalidMessage):
        judge_drift(REFERENCE, {"input.mean": FeatureCounts(cells=[1])}, look=1, devices=1)
    with pytest.raises(InvalidMessage):
        judge_drift(
            REFERENCE,
            {"input.mean": FeatureCounts(cells=[-1] * len(BRIGHTNESS.cells))},
            look=1,
            devices=1,
        )


def test_an_alarm_needs_two_looks_in_a_row() -> None:
    assert advance(0.3, 0.1, 0.3)[1] == [AlarmChange.NONE] * 3
    state, changes = advance(0.3, 0.3, 0.3)
    assert changes == [AlarmChange.NONE, AlarmChange.RAISED, AlarmChange.NONE]
    assert state.raised == ("input.mean",)
    assert state.looks == 3


def test_an_alarm_is_cleared_well_below_its_threshold_and_not_just_below() -> None:
    raised, _ = advance(0.3, 0.3)
    assert advance(0.19, 0.19, 0.19, state=raised)[0].raised
    assert advance(0.1, 0.19, 0.1, state=raised)[0].raised
    state, changes = advance(0.1, 0.1, state=raised)
    assert changes == [AlarmChange.NONE, AlarmChange.CLEARED]
    assert state.raised == ()
    assert advance(0.3, 0.3, state=state)[1][-1] is AlarmChange.RAISED


def test_a_look_at_too_few_values_neither_raises_nor_clears() -> None:
    once, _ = advance(0.3)
    silent, change = advance_alarm(once, [look(0.9, samples=10)])
    assert change is AlarmChange.NONE
    assert advance(0.3, state=silent)[1] == [AlarmChange.RAISED]
    raised, _ = advance(0.3, 0.3)
    for judged in ([], [look(0.0, samples=10)]):
        for _ in range(5):
            raised, change = advance_alarm(raised, judged)
        assert raised.raised


def test_an_alarm_names_every_feature_and_clears_when_all_are_calm() -> None:
    state = AlarmState()
    for _ in range(2):
        state, _ = advance_alarm(state, [look(0.3), look(0.1, feature="output.class")])
    for _ in range(2):
        state, change = advance_alarm(state, [look(0.1), look(0.3, feature="output.class")])
    assert state.raised == ("input.mean", "output.class")
    for _ in range(2):
        state, change = advance_alarm(state, [look(0.1), look(0.1, feature="output.class")])
    assert change is AlarmChange.CLEARED


def test_the_state_of_an_alarm_is_stored_without_loss() -> None:
    state, _ = advance(0.3, 0.3, 0.1)
    assert msgspec.json.decode(msgspec.json.encode(state), type=AlarmState) == state


def test_the_evidence_is_a_sentence() -> None:
    assert look(0.3).sentence == (
        "input.mean: distance 0.300 from the reference over 500 values, threshold 0.200"
    )
