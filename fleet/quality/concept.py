"""Concept drift: whether answers are wrong more often than they were on the held-out samples.

What is right for an input may change while the inputs look as ever: a price, a fashion, a relabelled class.
No confidence shows that; labels do, late and few as they come. The test asks whether the share of wrong
answers among labelled ones is above what is normal, and is valid however often it is asked.

**Normal** is every share of wrong answers up to h. With w of n held-out answers wrong, in angles as those of
`fleet.drift.splits`,

    h = arcsin sqrt((w + 3/8) / (n + 3/4))  +  ALLOWANCE / (2 sqrt(n))  +  NEGLIGIBLE

so that it pays for the held-out samples being a sample, and for what is of no consequence.

**One look** is at no fewer than `LABELS_PER_LOOK` labels of a device, `LABELS_TOGETHER` of all. With k of m
answers wrong, the likelihood ratio of a larger share s, (s / h)^k ((1 - s) / (1 - h))^(m - k), is an e-value
for every share up to h (`fleet.drift.evidence`); the look's is the mean over several s: a bet on errors, as
nobody knows how many more there will be.

**Looks add up** as those of drift alarms do, E(k) = e(k) (E(k - 1) + w(k)) with weights that sum to 1: an
e-detector (Shin, Ramdas and Rinaldo 2022, "E-detectors: a nonparametric framework for sequential change
detection") whose chance of ever reaching x is at most 1 / x while errors are normal. The threshold is that of
e-BH over every version on every device that is watched (`fleet.drift.alarms.discovery_threshold`); raising
takes `RAISE_AFTER` successive looks that speak for it, clearing `CLEAR_AFTER` that speak against it.

The test does not ask why. If the model was unsure of the labelled answers as well, the inputs became harder;
if it was as sure as ever, what is right has changed. `fleet.quality.verdict` compares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from fleet.drift.alarms import (
    CLEAR_AFTER,
    FALSE_DISCOVERY_RATE,
    NO_EVIDENCE,
    RAISE_AFTER,
    AlarmChange,
    accumulated,
    discovery_threshold,
)
from fleet.drift.evidence import EFFECTS
from fleet.drift.splits import REFERENCE_RATE

LABELS_PER_LOOK = 30
LABELS_TOGETHER = 240
"""At a look at all devices: it must be of many of them, or each is of whichever sent its labels last."""
ALLOWANCE = 2.326
"""By how many standard errors the held-out errors are too few with probability `REFERENCE_RATE` at most."""

NEGLIGIBLE = 0.02
"""An angle: 5.9 % of errors where there were 5 %, or 21.6 % where there were 20 %, are of no consequence."""


class ConceptState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The test of one version on one device, or on all of them together.

    Attributes:
        labelled: Labelled answers since the last look,
        wrong: and how many of them were wrong.
        looks: How many looks there were.
        evidence: Decimal logarithm of E.
        over: Successive looks at which the errors were a discovery.
        calm: Successive looks that spoke against it, while the alarm is raised.
        raised: Whether the alarm is raised.
        last_labelled: Labelled answers at the last look,
        last_wrong: and how many of them were wrong.
    """

    labelled: int = 0
    wrong: int = 0
    looks: int = 0
    evidence: float = NO_EVIDENCE
    over: int = 0
    calm: int = 0
    raised: bool = False
    last_labelled: int = 0
    last_wrong: int = 0

    def counted(self, labelled: int, wrong: int) -> ConceptState:
        """Return the state with more labels, each of which is given once.

        Args:
            labelled: Labelled answers.
            wrong: How many of them were wrong.
        """
        return msgspec.structs.replace(self, labelled=self.labelled + labelled, wrong=self.wrong + wrong)


def normal_angle(wrong: int, answers: int) -> float:
    """Return the angle of h, see the head of this file.

    Args:
        wrong: Of the held-out answers, w.
        answers: How many of those there were, n, from 1.
    """
    angle = math.asin(math.sqrt((wrong + 0.375) / (answers + 0.75)))
    return min(math.pi / 2.0, angle + ALLOWANCE / (2.0 * math.sqrt(answers)) + NEGLIGIBLE)


def look_evidence(angle: float, wrong: int, labelled: int) -> float:
    """Return the decimal logarithm of the e-value of one look; 0 where any share of errors is normal.

    Args:
        angle: Of h.
        wrong: k.
        labelled: m.
    """
    room = math.pi / 2.0 - angle
    if room < 1e-6:
        return 0.0
    ratios = []
    for effect in EFFECTS:
        larger = angle + min(effect, room / 2.0)
        ratio = wrong * math.log(math.sin(larger) / math.sin(angle))
        ratio += (labelled - wrong) * math.log(math.cos(larger) / math.cos(angle))
        ratios.append(2.0 * ratio)
    most = max(ratios)
    return (most + math.log(math.fsum(math.exp(r - most) for r in ratios) / len(ratios))) / math.log(10.0)


def look(
    state: ConceptState, angle: float, *, others: Sequence[float] = (), watched: int = 1
) -> tuple[ConceptState, AlarmChange]:
    """Return the state after a look at the labels since the last, and what the look changed.

    Args:
        state: Before.
        angle: Of h, of the version.
        others: Evidence of all else that is watched.
        watched: How many versions on how many devices are watched.
    """
    evidence_now = look_evidence(angle, state.wrong, state.labelled)
    evidence = accumulated(state.evidence, evidence_now, state.looks + 1)
    threshold = discovery_threshold([*others, evidence], watched, FALSE_DISCOVERY_RATE - REFERENCE_RATE)
    over = state.over + 1 if evidence_now > 0.0 and evidence >= threshold else 0
    calm = state.calm + 1 if state.raised and evidence_now < 0.0 else 0
    raised, change = state.raised, AlarmChange.NONE
    if not raised and over >= RAISE_AFTER:
        raised, change = True, AlarmChange.RAISED
    elif raised and calm >= CLEAR_AFTER:
        raised, change, calm, evidence = False, AlarmChange.CLEARED, 0, NO_EVIDENCE
    after = ConceptState(
        looks=state.looks + 1,
        evidence=evidence,
        over=over,
        calm=calm,
        raised=raised,
        last_labelled=state.labelled,
        last_wrong=state.wrong,
    )
    return after, change
