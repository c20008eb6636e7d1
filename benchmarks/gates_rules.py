"""The rules that end a simulated rollout: the gate itself, and the fixed thresholds that others use.

==========  ==========================================================================================
gate        `fleet.rollout.gates.gate.judge` after every window; a stage passes when it says so
limit       a check each interval: the canaries' share of errors (or nine-in-ten latency) is above a
            threshold; so many failed checks in a row roll back (Argo Rollouts, Flagger)
devices     a check each interval: the share of the canaries of which more than 5 % of the requests failed
            is above a threshold (hawkBit's error threshold of a group, which counts devices)
difference  as limit, of the canaries' share less the controls'; none of the others does so by itself
==========  ==========================================================================================

Fixed thresholds let a stage pass after a fixed time without roll back. All send the version to as many
devices in a time, and look while they do: who decides sooner exposes fewer, also within a stage. So does the
engine, which judges the current stage at every event and cancels what waits when it fails.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.gates_worlds import CLASSES, DEVICES, JUDGED, MINIMUM_BAKE, Floats, Ints, World, reaches, sent
from fleet.protocol.latency import LAST_BUCKET
from fleet.rollout.gates.evidence import Arm, Evidence, Tally
from fleet.rollout.gates.gate import Outcome, judge
from fleet.rollout.gates.groups import GROUPS, LEAST_DEVICES, group_of
from fleet.rollout.gates.spans import span_of
from fleet.rollout.plans.plan import Plan

KINDS = GROUPS * len(CLASSES)
DEVICE_FAILED = 0.05
LATE = 0.9


class End(NamedTuple):
    """How a rollout ended.

    Attributes:
        outcome: FAIL: rolled back; PASS: it reached everybody; INCONCLUSIVE: paused.
        exposed: How many devices got the version.
        ticks: How long it took.
        sentence: The gate's.
        classes: Which classes it named.
    """

    outcome: Outcome
    exposed: int
    ticks: int
    sentence: str = ""
    classes: tuple[str, ...] = ()


class Fixed(NamedTuple):
    """A rule with a fixed threshold.

    Attributes:
        kind: ``limit``, ``devices`` or ``difference``, see the head of this file.
        interval: Windows of each device in a check.
        failures: So many failed checks in a row roll back.
        bake: How long a stage lasts after its last device was sent the version.
    """

    kind: str
    interval: int
    failures: int
    bake: int


class Series(NamedTuple):
    """The checks of a rule.

    Attributes:
        values: What each sees.
        have: How many devices have the version by then.
    """

    values: Floats
    have: list[int]


def run_gate(world: World, plan: Plan, *, maximum_bake: int, by_class: bool = True) -> End:
    """Return how the gate ends the rollout.

    Args:
        world: The evidence.
        plan: Of stages as `reaches` says, with one metric.
        maximum_bake: After so long without PASS it pauses.
        by_class: Whether classes of devices are told apart.
    """
    stages: list[Evidence] = []
    tick = 0
    for number, reach in enumerate(reaches()):
        spans: dict[int, _Sums] = {}
        heard = np.zeros((2, KINDS), np.int64)
        baked = 0
        judged = number < JUDGED
        for have in sent(number, maximum_bake if judged else 0):
            span = span_of(have, DEVICES - have, canaries_at_end=reach, controls_at_end=DEVICES - reach)
            if span not in spans:
                spans[span] = _Sums(world, heard, by_class=by_class)
            spans[span].add(tick, have)
            tick += 1
            evidence = _added(spans, DEVICES - reach)
            verdict = judge(
                plan,
                (*stages, evidence),
                has_control=have < DEVICES,
                heard=reach,
                expected=reach,
                classes=len(CLASSES) if by_class else 0,
            )
            baked += have == reach
            if verdict.outcome is Outcome.FAIL:
                return End(Outcome.FAIL, have, tick, verdict.sentence, verdict.metrics[0].classes)
            if verdict.outcome is Outcome.PASS and baked > MINIMUM_BAKE:
                break
        if judged and verdict.outcome is not Outcome.PASS:
            return End(Outcome.INCONCLUSIVE, reach, tick, verdict.sentence)
        stages.append(evidence)
    return End(Outcome.PASS, DEVICES, tick)


def _added(spans: dict[int, _Sums], later: int) -> Evidence:
    """Return the evidence of a stage; a device is counted in the first span that it is heard of in.

    Args:
        spans: What was heard in each.
        later: How many controls there will be when the stage's orders are out.
    """
    whole = Evidence.empty(1)
    for span, sums in sorted(spans.items(), reverse=True):
        whole = whole.plus(sums.evidence(has_groups=later >= LEAST_DEVICES).during(span))
    return whole


class _Sums:
    """Evidence of one span of a stage, added up by group and class, in the columns of `KINDS`.

    Args:
        world: What is reported.
        heard: How many devices of each kind each arm has been heard of in the stage; changed here.
        by_class: Whether classes of devices are told apart.
    """

    def __init__(self, world: World, heard: Ints, *, by_class: bool) -> None:
        self._world, self._heard, self._by_class = world, heard, by_class
        groups = np.array([group_of(place) for place in range(DEVICES)])
        self._kinds = groups * len(CLASSES) + world.classes
        self._moments = np.zeros((2, KINDS, 5))
        self._cells = np.zeros((2, KINDS, LAST_BUCKET + 1), np.int64)
        self._windows = np.zeros((2, KINDS), np.int64)
        self._devices = np.zeros((2, KINDS), np.int64)

    def add(self, tick: int, have: int) -> None:
        """Add a window of every device, of which so many have the version."""
        for version, part in enumerate((slice(have, None), slice(0, have))):
            kinds = self._kinds[part]
            numbers = np.bincount(kinds, minlength=KINDS)
            self._windows[version] += numbers
            new = np.maximum(0, numbers - self._heard[version])
            self._devices[version] += new
            self._heard[version] += new
            if self._world.durations.size:
                drawn = self._world.durations[version, tick, part]
                flat = (kinds[:, None] * (LAST_BUCKET + 1) + drawn).ravel()
                self._cells[version] += np.bincount(flat, minlength=self._cells[version].size).reshape(
                    self._cells[version].shape
                )
                bad, total = drawn.sum(axis=1, dtype=np.float64), np.full(len(kinds), drawn.shape[1])
            else:
                bad, total = self._world.errors[version, tick, part], self._world.requests[tick, part]
            for column, values in enumerate((bad, total, bad * bad, bad * total, total * total)):
                self._moments[version, :, column] += np.bincount(kinds, values, KINDS)

    def evidence(self, *, has_groups: bool) -> Evidence:
        """Return the evidence so far, with its groups if they are to be told apart."""
        groups = {
            group: Evidence(self._arm(1, [group]), self._arm(0, [group]))
            for group in range(GROUPS * has_groups)
        }
        every = list(range(GROUPS))
        return Evidence(canary=self._arm(1, every), control=self._arm(0, every), groups=groups)

    def _arm(self, version: int, groups: list[int]) -> Arm:
        def of_groups(numbers: NDArray[Any]) -> NDArray[Any]:
            by_group = numbers[version].reshape(GROUPS, len(CLASSES), -1)
            return np.asarray(by_group[groups[0]] if len(groups) == 1 else by_group.sum(axis=0))

        columns = map(of_groups, (self._devices, self._windows, self._moments, self._cells))
        strata = {
            f"hardware={CLASSES[number]}": _part(int(devices[0]), int(windows[0]), moments.tolist(), cells)
            for number, (devices, windows, moments, cells) in enumerate(zip(*columns, strict=True))
            if windows[0]
        }
        whole = Arm.empty(1)
        for arm in strata.values():
            whole = whole.plus(arm)
        return Arm(whole.devices, whole.windows, 0, whole.tallies, strata if self._by_class else {})


def _part(devices: int, windows: int, moments: list[float], cells: Ints) -> Arm:
    bad, total, bad_squared, cross, total_squared = moments
    places = cells.nonzero()[0]
    inside = dict(zip(places.tolist(), cells[places].tolist(), strict=True))
    return Arm(devices, windows, 0, (Tally(int(bad), int(total), bad_squared, cross, total_squared, inside),))


def series(world: World, rule: Fixed) -> Series:
    """Return every check of a rule, until everybody has the version."""
    values: list[float] = []
    have: list[int] = []
    begin = 0
    for number in range(len(reaches())):
        stage = sent(number, rule.bake if number < JUDGED else 0)
        for first in range(0, len(stage) - rule.interval + 1, rule.interval):
            part = stage[first : first + rule.interval]
            values.append(_value(world, rule, begin + first, part))
            have.append(part[-1])
        begin += len(stage) - len(stage) % rule.interval
    return Series(np.array(values), have)


def run_fixed(checks: Series, rule: Fixed, threshold: float) -> End:
    """Return how a fixed threshold ends the rollout; a higher value is a failed check."""
    row = 0
    for check, value in enumerate(checks.values):
        row = row + 1 if value > threshold else 0
        if row >= rule.failures:
            return End(Outcome.FAIL, checks.have[check], (check + 1) * rule.interval)
    return End(Outcome.PASS, DEVICES, len(checks.values) * rule.interval)


def peak(checks: Series, rule: Fixed) -> float:
    """Return the largest threshold that would still roll back, nearly."""
    rows = np.lib.stride_tricks.sliding_window_view(checks.values, rule.failures)
    return float(rows.min(axis=1).max())


def _value(world: World, rule: Fixed, begin: int, have: list[int]) -> float:
    """Return what a check sees, of so many devices with the version at each time from ``begin`` on."""
    if world.durations.size:
        return _latency(world, rule, begin, have)
    ticks = slice(begin, begin + len(have))
    new = np.arange(have[-1]) < np.array(have)[:, None]
    errors, requests = world.errors[1, ticks, : have[-1]] * new, world.requests[ticks, : have[-1]] * new
    if rule.kind == "devices":
        return float((errors.sum(axis=0) > DEVICE_FAILED * requests.sum(axis=0)).mean())
    share = errors.sum() / requests.sum()
    if rule.kind == "difference" and have[-1] < DEVICES:
        share -= world.errors[0, ticks, have[-1] :].sum() / world.requests[ticks, have[-1] :].sum()
    return float(share)


def _latency(world: World, rule: Fixed, begin: int, have: list[int]) -> float:
    """Return the latency that nine in ten do not exceed, in buckets."""
    new = [world.durations[1, begin + tick, :number].ravel() for tick, number in enumerate(have)]
    late = float(np.quantile(np.concatenate(new), LATE))
    if rule.kind == "difference" and have[-1] < DEVICES:
        old = world.durations[0, begin : begin + len(have), have[-1] :]
        late -= float(np.quantile(old, LATE))
    return late
