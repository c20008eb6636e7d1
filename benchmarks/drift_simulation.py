"""Fleets that are watched for drift, simulated: how often alarms are false, and how soon they come."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from benchmarks.drift_cases import CATEGORIES, current_table, is_categorical
from fleet.drift.alarms import AlarmState, advance_alarm, judge_drift
from fleet.drift.allowance import calibrated
from fleet.drift.metrics import jensen_shannon
from fleet.drift.profile import (
    FeatureReference,
    ReferenceProfile,
    categorical_reference,
    count,
    numeric_reference,
)
from fleet.drift.transport import wasserstein

Generator = np.random.Generator
FEATURES, REFERENCE_ROWS = 4, 300
EVIDENTLY_THRESHOLD = 0.1
MOST_LOOKS = 20


class Fleet(NamedTuple):
    """What came of a fleet: alarms on features that did not drift and on such that did, of how many."""

    false: int
    true: int
    drifted: int
    first_looks: int
    """Features that were discoveries at a first look although they did not drift."""

    @property
    def false_share(self) -> float:
        """The share of the alarms that are false; 0 without any."""
        return self.false / max(1, self.false + self.true)


def watched_fleet(rng: Generator, *, devices: int, drifted: int, rows: int, looks: int) -> Fleet:
    """Watch devices with four features each; on some the first feature moves by one standard deviation."""
    features = [numeric_reference(f"f{n}", rng.normal(size=REFERENCE_ROWS)) for n in range(FEATURES)]
    reference = calibrated(ReferenceProfile(tuple(features)))
    states, first_looks = [AlarmState()] * devices, 0
    for look in range(looks):
        for device, state in enumerate(states):
            values = rng.normal(size=(FEATURES, rows))
            values[0] += float(device < drifted)
            counts = {f.name: count(f, column) for f, column in zip(reference.features, values, strict=True)}
            others = [e for n, s in enumerate(states) if n != device for e in s.evidence.values()]
            judged = judge_drift(reference, counts, state, others=others, watched=devices * FEATURES)
            if look == 0:
                first_looks += sum(d.drifted for d in judged[int(device < drifted) :])
            states[device], _ = advance_alarm(state, judged)
    raised = [(device, name) for device, state in enumerate(states) for name in state.raised]
    true = sum(device < drifted and name == "f0" for device, name in raised)
    return Fleet(len(raised) - true, true, drifted, first_looks)


def profile_of(column: np.ndarray, drift: str) -> ReferenceProfile:
    """Return a profile of one feature, from the values of a case's reference."""
    plain = (
        categorical_reference("x", column, CATEGORIES)
        if is_categorical(drift)
        else numeric_reference("x", column)
    )
    return calibrated(ReferenceProfile((plain,)))


def found_at_once(reference: ReferenceProfile, column: np.ndarray) -> bool:
    """Whether the first look at a feature that is watched alone is a discovery."""
    counts = {"x": count(reference.features[0], column)}
    return judge_drift(reference, counts, AlarmState(), watched=1)[0].drifted


def by_evidently(feature: FeatureReference, column: np.ndarray) -> bool:
    """Return Evidently's verdict, worked out from counts: its distance and threshold for large samples."""
    counts = count(feature, column)
    if feature.edges is None:  # its distance has another base
        return jensen_shannon(feature.cells, counts.cells) * math.sqrt(math.log(2.0)) >= EVIDENTLY_THRESHOLD
    return (wasserstein(feature, counts) or 0.0) >= EVIDENTLY_THRESHOLD


def median_looks(share: float) -> str:
    """Return the look by which half of the drift is found, if each look finds a share of it."""
    if share <= 0.0:
        return "never"
    return "1" if share >= 0.5 else str(math.ceil(math.log(0.5) / math.log(1.0 - share)))


def looks_until_alarm(rng: Generator, profile: ReferenceProfile, drift: str, rows: int) -> int | None:
    """Return after how many looks an alarm is raised, with 32 features watched; None if never."""
    state = AlarmState()
    for look in range(1, MOST_LOOKS + 1):
        counts = {"x": count(profile.features[0], current_table(rng, drift, rows, 1)[:, 0])}
        judged = judge_drift(profile, counts, state, watched=32)
        state, _ = advance_alarm(state, judged)
        if state.raised:
            return look
    return None
