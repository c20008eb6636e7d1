"""One metric of one stage: what the gate would make of the evidence that is to be expected.

The gate itself is asked (`fleet.rollout.gates.gate.judge`), with evidence as it would be on average
(`fleet.rollout.forecast.expected`). So whatever the gate counts, splits and compares with is in the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from fleet.rollout.forecast.chance import chance_of
from fleet.rollout.forecast.expected import expected_arm
from fleet.rollout.forecast.habits import Habits
from fleet.rollout.forecast.harm import harmed, sizes, told
from fleet.rollout.gates.comparison import Basis
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.gates.gate import MetricVerdict, judge, parts
from fleet.rollout.gates.groups import LEAST_DEVICES
from fleet.rollout.plans.plan import Metric, MetricGate, Plan

LIKELY = 0.8
"""A chance from which on something is called likely; from one less this on downwards, unlikely."""
SHORTEST_S = 60.0
"""A device tells of itself about once a minute."""
_TWO_SIDED = (Metric.OUTPUT_DRIFT, Metric.CONFIDENCE_DRIFT, Metric.INPUT_DRIFT)
"""Neither more nor less may be found by chance, of the share that is the hardest to tell."""
_HALVINGS = 5
_STEP = 2.0
_MOST_CANARIES = 0.8
"""Of the devices: the others are the controls that they are compared with."""


class Outlook(NamedTuple):
    """A metric of a stage, and the devices that it is judged on.

    Attributes:
        plan: The rollout's.
        gate: Of the metric.
        habits: What devices do now.
        canaries: How many devices of each class have the version by then.
        controls: How many of each wait for it and run another.
        earlier: What each earlier stage observed, of this metric alone.
    """

    plan: Plan
    gate: MetricGate
    habits: Habits
    canaries: Mapping[str, float]
    controls: Mapping[str, float]
    earlier: tuple[Evidence, ...] = ()

    @property
    def log_needed(self) -> float:
        """The logarithm of the e-value that is needed."""
        return math.log(parts(self.plan) / self.plan.gate.error_budget)

    def evidence(self, duration_s: float, canaries: Habits | None = None) -> Evidence:
        """Return what is to be expected; of other canaries, if these do otherwise."""
        return Evidence(
            expected_arm(self.canaries, canaries or self.habits, duration_s),
            expected_arm(self.controls, self.habits, duration_s),
        )

    def judged(self, duration_s: float, canaries: Habits | None = None) -> MetricVerdict:
        """Return what the gate makes of it."""
        alone = msgspec.structs.replace(
            self.plan, gate=msgspec.structs.replace(self.plan.gate, metrics=(self.gate,))
        )
        return judge(
            alone,
            (*self.earlier, self.evidence(duration_s, canaries)),
            has_control=any(self.controls.values()),
            heard=1,
            expected=1,
            classes=len((self.canaries.keys() | self.controls.keys()) - {""}),
        ).metrics[0]

    def chance(self, duration_s: float) -> float:
        """Return how likely a harmless version has a PASS of this metric after a bake, 0 to 1."""
        return self.chance_by(self.judged(duration_s))

    def chance_by(self, said: MetricVerdict) -> float:
        """Return the same from what the gate makes of the evidence after that bake."""
        if not self._is_enough(said):
            return 0.0
        chance = self._chance(said.safety)
        return max(0.0, 2.0 * chance - 1.0) if self.gate.metric in _TWO_SIDED else chance

    def finds(self, size: float, duration_s: float) -> bool:
        """Return whether harm of a size is likely found within a time, see `fleet.rollout.forecast.harm`."""
        said = self.judged(duration_s, harmed(self.habits, self.gate.metric, size))
        return self._is_enough(said) and self._chance(said.harm) >= LIKELY

    def _chance(self, e_value: float) -> float:
        sides = (self.canaries, self.controls)
        in_groups = any(sum(side.values()) >= LEAST_DEVICES for side in sides)
        return chance_of(math.log(e_value), self.log_needed, in_groups=in_groups)

    def _is_enough(self, said: MetricVerdict) -> bool:
        arms = (said.canary,) if said.basis is Basis.LIMIT else (said.canary, said.control)
        return min(arm.total for arm in arms) >= self.gate.minimum_samples


def time_needed_s(
    outlook: Outlook,
    longest_s: float,
    chance: float = 0.5,
    *,
    at_longest: float | None = None,
    near_s: float | None = None,
) -> float | None:
    """Return after how long a bake a PASS is as likely as that; None if not within the longest.

    Args:
        outlook: Of the metric and its devices.
        longest_s: The longest bake.
        chance: As likely as that.
        at_longest: How likely it is after the longest, if that is known.
        near_s: What was found of a metric much like it, if there is one.
    """

    def is_likely(duration_s: float) -> bool:
        known = at_longest if duration_s == longest_s else None
        return (outlook.chance(duration_s) if known is None else known) >= chance

    return _least(is_likely, SHORTEST_S, longest_s, near_s)


def devices_needed(outlook: Outlook, duration_s: float) -> int | None:
    """Return from how many canaries on, of the rollout's own mix, a PASS is likely; None if from none.

    Args:
        outlook: With controls of the same time.
        duration_s: Of the bake.
    """
    names = outlook.canaries.keys() | outlook.controls.keys()
    every = {name: outlook.canaries.get(name, 0.0) + outlook.controls.get(name, 0.0) for name in names}
    total = sum(every.values())

    def is_likely(devices: float) -> bool:
        share = devices / total
        canaries = {name: number * share for name, number in every.items()}
        controls = {name: number * (1.0 - share) for name, number in every.items()}
        return outlook._replace(canaries=canaries, controls=controls).chance(duration_s) >= LIKELY

    fewer = devices = max(1.0, sum(outlook.canaries.values()))
    while devices < _MOST_CANARIES * total:
        fewer, devices = devices, min(_MOST_CANARIES * total, devices * _STEP)
        if is_likely(devices):
            found = _least(is_likely, fewer, devices)
            return _rounded(found or devices)
    return None


def least_harm(outlook: Outlook, duration_s: float, near: float | None = None) -> float | None:
    """Return the least harm that is likely found within a time, as people are told of it; None if none is.

    Args:
        outlook: Of the metric and its devices.
        duration_s: The time.
        near: What was found of a metric much like it, if there is one.
    """
    tried = sizes(outlook.gate.metric)
    is_found = _Rising(lambda place: outlook.finds(tried[int(place)], duration_s))
    low, high = -1, len(tried)
    if near is not None:
        guess = next(
            (place for place, size in enumerate(tried) if told(outlook.gate.metric, size) >= near), high
        )
        is_found.look_around(max(-1, guess - 1), min(high - 1, guess), least=0)
    while high - low > 1:
        middle = (low + high) // 2
        if is_found(middle):
            high = middle
        else:
            low = middle
    return told(outlook.gate.metric, tried[high]) if high < len(tried) else None


class _Rising:
    """A question that is answered with yes from some value on; what follows from an answer is not asked.

    Args:
        holds: Answers it.
    """

    def __init__(self, holds: Callable[[float], bool]) -> None:
        self._holds = holds
        self._fails_to, self._holds_from = -math.inf, math.inf

    def __call__(self, value: float) -> bool:
        if value <= self._fails_to or value >= self._holds_from:
            return value >= self._holds_from
        found = self._holds(value)
        if found:
            self._holds_from = value
        else:
            self._fails_to = value
        return found

    def look_around(self, below: float, value: float, *, least: float) -> None:
        """Ask first whether a value is the first with yes, for which no is expected below."""
        if self(value) and below >= least:
            self(below)


def _least(
    holds: Callable[[float], bool], low: float, high: float, near: float | None = None
) -> float | None:
    """Return about the least value from which on something holds; None if not even at the greatest.

    Args:
        holds: Whether it does at a value.
        low: The least value.
        high: The greatest.
        near: A value that is expected to be about the one.
    """
    if low >= high:
        return high if holds(high) else None
    if not holds(high):
        return None
    asked = _Rising(holds)
    if near is not None:
        below, guess = _halved(lambda middle: middle >= near, low, high)
        asked.look_around(below, guess, least=math.nextafter(low, high))
    return _halved(asked, low, high)[1]


def _halved(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return two values between which something begins to hold."""
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        if holds(middle):
            high = middle
        else:
            low = middle
    return low, high


def _rounded(devices: float) -> int:
    """Return a number rounded up to two digits."""
    unit = 10.0 ** max(0, math.floor(math.log10(devices)) - 1)
    return round(math.ceil(devices / unit) * unit)
