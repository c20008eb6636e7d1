"""Drift alarms of which a stated share is false.

**One look** compares the counts of a device since the last look with the reference, feature by feature,
and gives each feature evidence: an e-value, see `fleet.drift.evidence`.

**Looks add up.** Drift may begin at any look. With the e-value e(k) of look k, and weights w(k) = 6 /
(pi^2 k^2), which sum to 1, over the look at which it began,

    E(k) = e(k) (E(k - 1) + w(k)),   E(0) = 0

has for ever, without drift, at most the chance 1 / x to reach x (it is a mixture of products of e-values:
Ville's inequality, 1939; Shin, Ramdas and Rinaldo 2022, "E-detectors"). So looking often costs nothing,
small drift that lasts is found in the end, and drift after a long calm is found as well.

**All features, models and devices.** Of all E that are watched, K in number, those are discoveries that
are at least K / (a r), r being how many there are of them: e-BH (Wang and Ramdas 2022, "False discovery
rate control with e-values"). The expected share of false ones among the alarms is at most a, however
features, devices and looks depend on one another. a is `FALSE_DISCOVERY_RATE` less `REFERENCE_RATE`, which
is for the reference itself being off. Without any drift it is the probability of any alarm, for ever.

**State.** An alarm is raised when a feature is a discovery at `RAISE_AFTER` successive looks, each of
which itself speaks for drift, and cleared when at `CLEAR_AFTER` successive looks every feature named
speaks against it; then its evidence starts anew. A look at too few values says nothing, either way.
Another version has another reference: its alarm starts from a new `AlarmState`.

What the rate rests on is that values are independent draws. A stream that repeats a small pool of values
has the pool's distribution, and may truly be far from the reference: `fleet.drift.splits.MATERIAL` must
then be above what a sample of the pool's size is off by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.evidence import find
from fleet.drift.metrics import (
    anderson_darling,
    chi_square,
    jensen_shannon,
    ks_distance,
    psi,
    total_variation,
)
from fleet.drift.profile import FeatureCounts, FeatureReference, Profile, ReferenceProfile
from fleet.drift.splits import REFERENCE_RATE
from fleet.drift.transport import wasserstein

FALSE_DISCOVERY_RATE = 0.05
LEAST_THRESHOLD = -math.log10(FALSE_DISCOVERY_RATE)
"""Where all that is watched is a discovery; elsewhere thresholds are higher."""
MINIMUM_SAMPLES = 30
RAISE_AFTER = 2
CLEAR_AFTER = 2
MOST_EVIDENCE = 15.0
"""What is above is not kept: an alarm must not take as long to end as it lasted."""
NO_EVIDENCE = -MOST_EVIDENCE
"""What is below counts for so much: nothing."""

Evidence = Sequence[float] | NDArray[np.float64]


class FeatureDrift(msgspec.Struct, frozen=True):
    """One feature at one look.

    Attributes:
        feature: Name, see `fleet.drift.features`.
        samples: Values of the current sample, missing ones included.
        drifted: Whether the evidence reaches the threshold, and this look itself speaks for drift.
        threshold: What the evidence must reach.
        evidence: For drift, of all looks: the decimal logarithm of E, see the head of this file.
        look_evidence: Of this look alone.
        split: The split of the values that says most, see `fleet.drift.splits`,
        share: the share of values on that side,
        expected: and what it was in the reference.
        distance: Kolmogorov-Smirnov distance to the reference; this and the rest decide nothing.
        total_variation: See `fleet.drift.metrics`, as for the next four.
        psi: Population stability index.
        jensen_shannon: Distance to base 2.
        anderson_darling: Standardised statistic.
        chi_square: Statistic for each degree of freedom.
        wasserstein: In standard deviations of the reference; None where it cannot be said.
        missing: Share of all values.
        outside: Share of the present values beyond the edges, or in no known category.
    """

    feature: str
    samples: int
    drifted: bool
    threshold: float
    evidence: float = NO_EVIDENCE
    look_evidence: float = NO_EVIDENCE
    split: str = ""
    share: float = 0.0
    expected: float = 0.0
    distance: float = 0.0
    total_variation: float = 0.0
    psi: float = 0.0
    jensen_shannon: float = 0.0
    anderson_darling: float = 0.0
    chi_square: float = 0.0
    wasserstein: float | None = None
    missing: float = 0.0
    outside: float = 0.0

    @property
    def is_judged(self) -> bool:
        """Whether there were enough samples to say anything."""
        return self.samples >= MINIMUM_SAMPLES

    @property
    def sentence(self) -> str:
        """The evidence, for people."""
        return (
            f"{self.feature}: {self.share:.1%} of {self.samples:,} values {self.split}, in the reference"
            f" {self.expected:.1%}; evidence {self.evidence:.1f}, threshold {self.threshold:.1f}"
        )


class AlarmState(msgspec.Struct, frozen=True):
    """The drift alarm of one model on one device.

    Attributes:
        looks: How many looks there were; the next one has this number plus 1.
        raised: The features that the alarm names; empty while there is none.
        over: At how many successive looks each feature has drifted; features at 0 are left out.
        calm: At how many successive looks all of ``raised`` spoke against drift.
        evidence: Of each feature that was judged, of all looks, see the head of this file.
    """

    looks: int = 0
    raised: tuple[str, ...] = ()
    over: dict[str, int] = {}
    calm: int = 0
    evidence: dict[str, float] = {}


class AlarmChange(StrEnum):
    """What a look did to the alarm."""

    NONE = "none"
    RAISED = "raised"
    CLEARED = "cleared"


def discovery_threshold(evidence: Evidence, watched: int, rate: float) -> float:
    """Return the evidence that makes a discovery, by e-BH.

    Args:
        evidence: Of everything that has some; what is watched without any may be left out.
        watched: How many features of how many devices and versions are watched, at least.
        rate: Share of false discoveries.
    """
    count = max(1, watched, len(evidence))
    ordered = np.sort(np.asarray(evidence, dtype=np.float64), kind="stable")[::-1]  # mostly sorted already
    ranks = np.arange(1, len(ordered) + 1)
    reaching = np.flatnonzero(ordered >= np.log10(count / (rate * ranks)))
    discoveries = int(reaching[-1]) + 1 if len(reaching) else 1
    return math.log10(count / (rate * discoveries))


def judge_drift(
    reference: ReferenceProfile,
    counts: Profile,
    state: AlarmState,
    *,
    others: Evidence = (),
    watched: int = 1,
    false_discovery_rate: float = FALSE_DISCOVERY_RATE,
) -> list[FeatureDrift]:
    """Compare a device's counts since the last look with the reference.

    Args:
        reference: Of the version that answered.
        counts: Of that version's windows; features that the reference does not know are left out.
        state: The alarm before this look.
        others: Evidence of all that is watched on other devices and of other versions.
        watched: How many features of how many devices and versions are watched.
        false_discovery_rate: See the head of this file.

    Raises:
        InvalidMessage: Counts have another layout than the reference, or are negative.
    """
    known = [feature for feature in reference.features if feature.name in counts]
    judged = [_judged(feature, counts[feature.name], state, len(reference.features)) for feature in known]
    threshold = discovery_threshold(
        np.concatenate([others, [drift.evidence for drift in judged]]),
        watched,
        false_discovery_rate - REFERENCE_RATE,
    )
    return [
        msgspec.structs.replace(
            drift,
            threshold=threshold,
            drifted=drift.is_judged and drift.look_evidence > 0.0 and drift.evidence >= threshold,
        )
        for drift in judged
    ]


def advance_alarm(state: AlarmState, judged: list[FeatureDrift]) -> tuple[AlarmState, AlarmChange]:
    """Return the alarm after a look, and what the look changed.

    Args:
        state: Before.
        judged: From `judge_drift`; features with too few samples neither raise nor clear.
    """
    looked = {drift.feature: drift for drift in judged if drift.is_judged}
    over = {name: count for name, count in state.over.items() if name not in looked}
    over.update({name: state.over.get(name, 0) + 1 for name, drift in looked.items() if drift.drifted})
    evidence = state.evidence | {name: drift.evidence for name, drift in looked.items()}
    persistent = {name for name, count in over.items() if count >= RAISE_AFTER}
    raised = tuple(sorted(persistent.union(state.raised)))
    calm = _calm(state.calm, raised, looked)
    change = AlarmChange.NONE
    if raised and not state.raised:
        change = AlarmChange.RAISED
    elif raised and calm >= CLEAR_AFTER:
        evidence = {name: value for name, value in evidence.items() if name not in raised}
        change, raised, calm = AlarmChange.CLEARED, (), 0
    return AlarmState(state.looks + 1, raised, over, calm, evidence), change


def _calm(calm: int, raised: tuple[str, ...], looked: dict[str, FeatureDrift]) -> int:
    named = [looked[name] for name in raised if name in looked]
    if not raised or any(drift.look_evidence >= 0.0 for drift in named):
        return 0
    return calm + 1 if len(named) == len(raised) else calm


def _judged(
    reference: FeatureReference, current: FeatureCounts, state: AlarmState, features: int
) -> FeatureDrift:
    """Return a feature at a look, without the threshold."""
    left, right = [reference.missing, *reference.cells], [current.missing, *current.cells]
    distance = ks_distance(left, right)  # refuses another layout
    found = find(reference, current, features)
    before = state.evidence.get(reference.name, NO_EVIDENCE)
    samples, present = sum(right), max(1, current.total)
    squares, freedom = chi_square(left, right)
    beyond = current.cells[-1] + (current.cells[0] if reference.edges is not None else 0)
    return FeatureDrift(
        feature=reference.name,
        samples=samples,
        evidence=accumulated(before, found.evidence, state.looks + 1)
        if samples >= MINIMUM_SAMPLES
        else before,
        threshold=math.inf,
        look_evidence=found.evidence,
        drifted=False,
        split=found.split,
        share=found.share,
        expected=found.expected,
        distance=distance,
        total_variation=total_variation(left, right),
        psi=psi(left, right),
        jensen_shannon=jensen_shannon(left, right),
        anderson_darling=anderson_darling(left, right),
        chi_square=squares / max(1, freedom),
        wasserstein=wasserstein(reference, current),
        missing=current.missing / max(1, samples),
        outside=beyond / present,
    )


def accumulated(before: float, evidence: float, look: int) -> float:
    """Return the decimal logarithm of E(k), see the head of this file.

    Args:
        before: That of E(k - 1).
        evidence: That of e(k).
        look: k, from 1.
    """
    began = math.log10(6.0 / (math.pi * look) ** 2)
    larger, smaller = max(before, began), min(before, began)
    sum_of_both = larger + math.log10(1.0 + 10.0 ** (smaller - larger))
    return max(NO_EVIDENCE, min(MOST_EVIDENCE, evidence + sum_of_both))
