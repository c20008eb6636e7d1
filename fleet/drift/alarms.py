"""Drift alarms whose false-alarm rate is a stated number.

**One look.** Let F be what the reference sample was drawn from. If a device still sees F, the empirical
distribution of n values is further than eps(n, a) from F with probability a at most, where

    eps(n, a) = sqrt( ln(2 / a) / (2 n) )

(Dvoretzky, Kiefer, Wolfowitz 1956, with the constant of Massart 1990; any n, any F). By the triangle
inequality reference and current sample are then closer than eps(n_ref, ·) + eps(n_cur, ·). Binned counts can
only bring them closer, so the test on counts is conservative. Missing values count as one more cell,
below all others: losing a sensor is drift too.

**All looks, features and devices.** The rate ``false_alarm_rate`` is the probability that any alarm is
ever raised on any device without drift. Half of it goes to the reference, shared over the features only,
because all devices and looks share one reference sample. The other half goes to the current samples:
shared over features and devices, and over looks k = 1, 2, … by 6 / (pi^2 k^2), which sum to 1.

**Materiality.** With many samples a difference can be certain and still of no consequence: a distance
below `floor` never alarms.

**State.** An alarm is raised when a feature has drifted at `RAISE_AFTER` successive looks, and cleared
when at `CLEAR_AFTER` successive looks every feature named is below `CLEAR_SHARE` of its threshold. A look
at too few values says nothing, either way. Persistence can only lower the rate above. Another version has
another reference: its alarm starts from a new `AlarmState`.

What the rate rests on is that values are independent draws. A stream that repeats a small pool of values
has the pool's distribution, not F: then the pool's size, not n, bounds how near it can be, and the floor
must be above eps(pool size).
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from fleet.drift.metrics import ks_distance, psi, total_variation
from fleet.drift.profile import FeatureCounts, FeatureReference, Profile, ReferenceProfile

FALSE_ALARM_RATE = 0.01
FLOOR = 0.1
"""A tenth of the values on the other side of some edge."""
MINIMUM_SAMPLES = 30
RAISE_AFTER = 2
CLEAR_AFTER = 2
CLEAR_SHARE = 0.8


class FeatureDrift(msgspec.Struct, frozen=True):
    """One feature at one look.

    Attributes:
        feature: Name, see `fleet.drift.features`.
        samples: Values of the current sample, missing ones included.
        distance: Kolmogorov-Smirnov distance to the reference.
        threshold: What the distance must exceed; above 1 where there are too few samples for any verdict.
        psi: For display.
        total_variation: For display.
        drifted: Whether it exceeds the threshold.
    """

    feature: str
    samples: int
    distance: float
    threshold: float
    psi: float
    total_variation: float
    drifted: bool

    @property
    def is_judged(self) -> bool:
        """Whether there were enough samples to say anything."""
        return self.samples >= MINIMUM_SAMPLES

    @property
    def sentence(self) -> str:
        """The evidence, for people."""
        return (
            f"{self.feature}: distance {self.distance:.3f} from the reference over {self.samples:,} values, "
            f"threshold {self.threshold:.3f}"
        )


class AlarmState(msgspec.Struct, frozen=True):
    """The drift alarm of one model on one device.

    Attributes:
        looks: How many looks there were; the next one has this number plus 1.
        raised: The features that the alarm names; empty while there is none.
        over: At how many successive looks each feature has drifted; features at 0 are left out.
        calm: At how many successive looks all of ``raised`` was well below its thresholds.
    """

    looks: int = 0
    raised: tuple[str, ...] = ()
    over: dict[str, int] = {}
    calm: int = 0


class AlarmChange(StrEnum):
    """What a look did to the alarm."""

    NONE = "none"
    RAISED = "raised"
    CLEARED = "cleared"


def dkw_epsilon(samples: int, alpha: float) -> float:
    """Return eps(n, a), see the head of this file; infinite for no samples."""
    return math.sqrt(math.log(2.0 / alpha) / (2.0 * samples)) if samples > 0 else math.inf


def drift_threshold(
    reference_samples: int,
    samples: int,
    *,
    look: int,
    features: int,
    devices: int,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    floor: float = FLOOR,
) -> float:
    """Return the distance that one feature of one device must exceed at one look.

    Args:
        reference_samples: Size of the reference sample.
        samples: Size of the current sample.
        look: Number of the look, from 1.
        features: How many features are judged on each device.
        devices: How many devices are judged against this reference.
        false_alarm_rate: For all of them and all looks together.
        floor: Materiality.
    """
    half = false_alarm_rate / 2.0
    at_this_look = 6.0 / (math.pi * look) ** 2
    return max(
        floor,
        dkw_epsilon(reference_samples, half / features)
        + dkw_epsilon(samples, half / (features * devices) * at_this_look),
    )


def judge_drift(
    reference: ReferenceProfile,
    counts: Profile,
    *,
    look: int,
    devices: int,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    floor: float = FLOOR,
) -> list[FeatureDrift]:
    """Compare a device's counts since the last look with the reference.

    Args:
        reference: Of the version that answered.
        counts: Of that version's windows; features that the reference does not know are left out.
        look: Number of this look at this device, from 1: ``state.looks + 1``.
        devices: How many devices are judged against this reference.
        false_alarm_rate: See the head of this file.
        floor: Likewise.

    Raises:
        InvalidMessage: Counts have another layout than the reference, or are negative.
    """
    judged = []
    for feature in reference.features:
        current = counts.get(feature.name)
        if current is None:
            continue
        left, right = _with_missing(feature), _with_missing(current)
        distance = ks_distance(left, right)
        threshold = drift_threshold(
            sum(left),
            sum(right),
            look=look,
            features=len(reference.features),
            devices=max(1, devices),
            false_alarm_rate=false_alarm_rate,
            floor=floor,
        )
        judged.append(
            FeatureDrift(
                feature=feature.name,
                samples=sum(right),
                distance=distance,
                threshold=threshold,
                psi=psi(left, right),
                total_variation=total_variation(left, right),
                drifted=sum(right) >= MINIMUM_SAMPLES and distance > threshold,
            )
        )
    return judged


def advance_alarm(state: AlarmState, judged: list[FeatureDrift]) -> tuple[AlarmState, AlarmChange]:
    """Return the alarm after a look, and what the look changed.

    Args:
        state: Before.
        judged: From `judge_drift`; features with too few samples neither raise nor clear.
    """
    looked = {drift.feature: drift for drift in judged if drift.is_judged}
    over = {name: count for name, count in state.over.items() if name not in looked}
    over.update({name: state.over.get(name, 0) + 1 for name, drift in looked.items() if drift.drifted})
    persistent = {name for name, count in over.items() if count >= RAISE_AFTER}
    raised = tuple(sorted(persistent.union(state.raised)))
    calm = _calm(state.calm, raised, looked)
    change = AlarmChange.NONE
    if raised and not state.raised:
        change = AlarmChange.RAISED
    elif raised and calm >= CLEAR_AFTER:
        change, raised, calm = AlarmChange.CLEARED, (), 0
    return AlarmState(state.looks + 1, raised, over, calm), change


def _calm(calm: int, raised: tuple[str, ...], looked: dict[str, FeatureDrift]) -> int:
    named = [looked[name] for name in raised if name in looked]
    if not raised or any(drift.distance >= CLEAR_SHARE * drift.threshold for drift in named):
        return 0
    return calm + 1 if len(named) == len(raised) else calm


def _with_missing(counts: FeatureReference | FeatureCounts) -> list[int]:
    return [counts.missing, *counts.cells]
