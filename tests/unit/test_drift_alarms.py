"""Drift alarms: thresholds, and how an alarm is raised, held and cleared."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from fleet.drift.alarms import (
    LEAST_THRESHOLD,
    MOST_EVIDENCE,
    AlarmChange,
    AlarmState,
    FeatureDrift,
    advance_alarm,
    discovery_threshold,
    judge_drift,
)
from fleet.drift.allowance import calibrated
from fleet.drift.profile import (
    FeatureCounts,
    Profile,
    ReferenceProfile,
    categorical_reference,
    count,
    numeric_reference,
)
from fleet.drift.splits import MATERIAL, band, splits
from fleet.protocol.errors import InvalidMessage

RNG = np.random.default_rng(1)
BRIGHTNESS = numeric_reference("input.mean", RNG.normal(0.0, 1.0, 1000))
CLASS = categorical_reference("output.class", RNG.integers(0, 10, 1000), 10)
REFERENCE = calibrated(ReferenceProfile(features=(BRIGHTNESS, CLASS)))


def look(
    evidence: float, *, feature: str = "input.mean", samples: int = 500, now: float = 1.0
) -> FeatureDrift:
    """Return a feature with evidence of all looks and of this one, under a threshold of 3."""
    drifted = samples >= 30 and evidence >= 3.0 and now > 0.0
    return FeatureDrift(feature, samples, drifted, 3.0, evidence, now)


def advance(*looks: FeatureDrift, state: AlarmState | None = None) -> tuple[AlarmState, list[AlarmChange]]:
    state, changes = state or AlarmState(), []
    for each in looks:
        state, change = advance_alarm(state, [each])
        changes.append(change)
    return state, changes


def judged_alone(counts: Profile, state: AlarmState | None = None) -> dict[str, FeatureDrift]:
    return {
        drift.feature: drift for drift in judge_drift(REFERENCE, counts, state or AlarmState(), watched=16)
    }


YES, NO = look(5.0), look(1.0, now=-1.0)


@pytest.mark.parametrize(
    ("evidence", "watched", "threshold"),
    [
        ([], 1, math.log10(1 / 0.04)),
        ([1.0, -5.0], 100, math.log10(100 / 0.04)),
        ([3.5, 1.0], 100, math.log10(100 / 0.04)),  # the first is a discovery, the second is not
        ([3.2, 3.2], 100, math.log10(100 / 0.04 / 2)),  # neither is alone; together both are
        ([9.0] * 10, 10, math.log10(1 / 0.04)),
        ([9.0] * 10, 1, math.log10(1 / 0.04)),  # more are watched than was said
    ],
)
def test_the_more_is_found_the_lower_is_the_threshold(
    evidence: list[float], watched: int, threshold: float
) -> None:
    assert discovery_threshold(evidence, watched, 0.04) == pytest.approx(threshold)
    assert discovery_threshold(evidence, watched, 0.04) >= LEAST_THRESHOLD


def test_the_band_narrows_with_the_reference_down_to_what_is_material() -> None:
    def width(size: int) -> float:
        feature = numeric_reference("x", np.random.default_rng(4).normal(size=size))
        (feature,) = calibrated(ReferenceProfile((feature,))).features
        normal = band(feature, 1)
        return float((normal.high - normal.low)[32] / 2)

    assert width(100) > width(1000) > width(100_000) > MATERIAL
    assert width(100_000) < 1.2 * MATERIAL


def test_splits_are_shares_below_each_edge_of_each_category_and_of_the_missing() -> None:
    numeric = splits(FeatureCounts([1, 2, 3, 4], missing=10), numeric=True)
    assert numeric.part.tolist() == [1, 3, 6, 10]
    assert numeric.of.tolist() == [10, 10, 10, 20]
    categorical = splits(FeatureCounts([1, 2, 3]), numeric=False)
    assert categorical.part.tolist() == [1, 2, 3, 0]
    assert categorical.of.tolist() == [6, 6, 6, 6]


def test_a_profile_that_was_not_calibrated_is_allowed_more() -> None:
    plain = band(BRIGHTNESS, 2)
    fitted = band(REFERENCE.features[0], 2)
    assert (plain.high >= fitted.high).all()


def test_the_same_distribution_does_not_drift_and_another_does() -> None:
    rng = np.random.default_rng(2)
    for mean, drifted in [(0.0, False), (1.5, True)]:
        counts = {
            "input.mean": count(BRIGHTNESS, rng.normal(mean, 1.0, 400)),
            "output.class": count(CLASS, rng.integers(0, 10, 400)),
        }
        judged = judged_alone(counts)
        assert judged["input.mean"].drifted is drifted
        assert judged["output.class"].drifted is False
        assert judged["input.mean"].samples == 400


def test_values_that_go_missing_are_drift_and_said_to_be_missing() -> None:
    values = np.random.default_rng(3).normal(size=300)
    values[:90] = np.nan
    judged = judged_alone({"input.mean": count(BRIGHTNESS, values)})["input.mean"]
    assert judged.drifted
    assert (judged.samples, judged.split, judged.share, judged.expected) == (300, "missing", 0.3, 0.0)
    assert judged.missing == 0.3


@pytest.mark.parametrize(
    ("numbers", "split"),
    [(np.full(300, 4), "of category 4"), (np.full(300, 77), "unseen")],
)
def test_a_category_that_comes_up_is_drift_and_named(numbers: np.ndarray, split: str) -> None:
    judged = judged_alone({"output.class": count(CLASS, numbers)})["output.class"]
    assert judged.drifted
    assert (judged.split, judged.share) == (split, 1.0)
    assert judged.outside == float(split == "unseen")


def test_values_beyond_the_edges_are_drift_though_few() -> None:
    values = np.random.default_rng(6).normal(size=1000)
    values[:80] = 50.0
    judged = judged_alone({"input.mean": count(BRIGHTNESS, values)})["input.mean"]
    assert judged.drifted
    assert judged.distance < 0.1
    assert 0.08 <= judged.outside <= 0.09


def test_small_drift_that_lasts_adds_up() -> None:
    rng, state, evidence = np.random.default_rng(7), AlarmState(), []
    for _ in range(12):
        counts = {"input.mean": count(BRIGHTNESS, rng.normal(0.55, 1.0, 150))}
        judged = judge_drift(REFERENCE, counts, state, watched=16)
        state, _ = advance_alarm(state, judged)
        evidence.append(judged[0].evidence)
    assert evidence[0] < judged[0].threshold
    assert state.raised == ("input.mean",)
    assert max(evidence) <= MOST_EVIDENCE


def test_too_few_values_say_nothing() -> None:
    far = {"input.mean": count(BRIGHTNESS, np.full(29, 9.0))}
    state = AlarmState(evidence={"input.mean": 2.5})
    judged = judged_alone(far, state)["input.mean"]
    assert not judged.is_judged
    assert not judged.drifted
    assert judged.evidence == 2.5
    assert not judged_alone({"input.mean": FeatureCounts.empty(BRIGHTNESS)})["input.mean"].drifted


def test_what_the_reference_does_not_know_is_left_out_and_other_layouts_are_refused() -> None:
    assert judged_alone({"input.colour": FeatureCounts(cells=[1])}) == {}
    for cells in ([1], [-1] * len(BRIGHTNESS.cells)):
        with pytest.raises(InvalidMessage):
            judged_alone({"input.mean": FeatureCounts(cells=cells)})


def test_an_alarm_needs_two_looks_in_a_row() -> None:
    assert advance(YES, NO, YES)[1] == [AlarmChange.NONE] * 3
    state, changes = advance(YES, YES, YES)
    assert changes == [AlarmChange.NONE, AlarmChange.RAISED, AlarmChange.NONE]
    assert state.raised == ("input.mean",)
    assert state.looks == 3


def test_evidence_from_before_is_not_enough_for_an_alarm() -> None:
    assert advance(YES, look(4.0, now=-1.0))[0].raised == ()


def test_an_alarm_is_cleared_when_looks_speak_against_drift_and_starts_anew() -> None:
    raised, _ = advance(YES, YES)
    assert advance(look(2.0), look(2.0), look(2.0), state=raised)[
        0
    ].raised  # too little for an alarm: it stays
    assert advance(NO, look(2.0), NO, state=raised)[0].raised
    state, changes = advance(NO, NO, state=raised)
    assert changes == [AlarmChange.NONE, AlarmChange.CLEARED]
    assert (state.raised, state.evidence) == ((), {})
    assert advance(YES, YES, state=state)[1][-1] is AlarmChange.RAISED


def test_a_look_at_too_few_values_neither_raises_nor_clears() -> None:
    once, _ = advance(YES)
    silent, change = advance_alarm(once, [look(9.0, samples=10)])
    assert change is AlarmChange.NONE
    assert advance(YES, state=silent)[1] == [AlarmChange.RAISED]
    raised, _ = advance(YES, YES)
    for judged in ([], [look(-9.0, samples=10, now=-9.0)]):
        for _ in range(5):
            raised, change = advance_alarm(raised, judged)
        assert raised.raised


def test_an_alarm_names_every_feature_and_clears_when_all_are_calm() -> None:
    state, other = AlarmState(), "output.class"
    for _ in range(2):
        state, _ = advance_alarm(state, [YES, look(1.0, feature=other, now=-1.0)])
    for _ in range(2):
        state, change = advance_alarm(state, [NO, look(5.0, feature=other)])
    assert state.raised == ("input.mean", "output.class")
    for _ in range(2):
        state, change = advance_alarm(state, [NO, look(1.0, feature=other, now=-1.0)])
    assert change is AlarmChange.CLEARED


def test_the_state_of_an_alarm_is_stored_without_loss() -> None:
    state, _ = advance(YES, YES, NO)
    assert msgspec.json.decode(msgspec.json.encode(state), type=AlarmState) == state


def test_the_evidence_is_a_sentence() -> None:
    drift = msgspec.structs.replace(YES, split="below 1.5", share=0.31, expected=0.125)
    assert drift.sentence == (
        "input.mean: 31.0% of 500 values below 1.5, in the reference 12.5%; evidence 5.0, threshold 3.0"
    )
