"""The rules that end a simulated rollout: the gate itself, and the fixed thresholds that others use.

==========  ==========================================================================================
gate        `fleet.rollout.gates.judge` after every window; a stage passes when it says so
limit       a check each interval: the canaries' share of errors (or nine-in-ten latency) is above a
            threshold; so many failed checks in a row roll back (Argo Rollouts, Flagger)
devices     a check each interval: the share of the canaries of which more than 5 % of the requests failed
            is above a threshold (hawkBit's error threshold of a group, which counts devices)
difference  as limit, of the canaries' share less the controls'; none of the others does so by itself
==========  ==========================================================================================

Fixed thresholds let a stage pass after a fixed time without roll back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.gates_worlds import CLASSES, DEVICES, MINIMUM_BAKE, Floats, World, reaches
from fleet.protocol.latency import LAST_BUCKET
from fleet.rollout.evidence import Arm, Evidence, Tally
from fleet.rollout.gates import Outcome, Verdict, judge
from fleet.rollout.plan import Plan

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
        bake: How long a stage lasts.
    """

    kind: str
    interval: int
    failures: int
    bake: int


def run_gate(world: World, plan: Plan, *, by_class: bool = True) -> End:
    """Return how the gate ends the rollout.

    Args:
        world: The evidence.
        plan: Of stages as `reaches` says, with one metric.
        by_class: Whether classes of devices are told apart.
    """
    stages: list[Evidence] = []
    tick = 0
    for reach in reaches():
        sums = _Sums(world, reach, by_class=by_class)
        verdict: Verdict | None = None
        for baked in range(1, len(world.requests) // len(reaches()) + 1):
            sums.add(tick)
            tick += 1
            verdict = judge(
                plan,
                (*stages, sums.evidence()),
                has_control=reach < DEVICES,
                heard=reach,
                expected=reach,
            )
            if verdict.outcome is Outcome.FAIL:
                return End(Outcome.FAIL, reach, tick, verdict.sentence, verdict.metrics[0].classes)
            if verdict.outcome is Outcome.PASS and baked >= MINIMUM_BAKE:
                break
        else:
            assert verdict is not None
            return End(Outcome.INCONCLUSIVE, reach, tick, verdict.sentence)
        stages.append(sums.evidence())
    return End(Outcome.PASS, DEVICES, tick)


class _Sums:
    """Evidence of one stage, added up by class."""

    def __init__(self, world: World, reach: int, *, by_class: bool) -> None:
        self._world, self._reach, self._by_class = world, reach, by_class
        self._ticks = 0
        self._moments = np.zeros((2, len(CLASSES), 5))
        self._cells = np.zeros((2, len(CLASSES), LAST_BUCKET + 1), np.int64)
        self._devices = np.stack(
            [
                np.bincount(part, minlength=len(CLASSES))
                for part in (world.classes[reach:], world.classes[:reach])
            ]
        )

    def add(self, tick: int) -> None:
        """Add a window of every device."""
        self._ticks += 1
        for version, part in enumerate((slice(self._reach, None), slice(0, self._reach))):
            classes = self._world.classes[part]
            if self._world.durations.size:
                drawn = self._world.durations[version, tick, part]
                flat = (classes[:, None] * (LAST_BUCKET + 1) + drawn).ravel()
                self._cells[version] += np.bincount(flat, minlength=self._cells[version].size).reshape(
                    self._cells[version].shape
                )
                bad, total = drawn.sum(axis=1, dtype=np.float64), np.full(len(classes), drawn.shape[1])
            else:
                bad, total = self._world.errors[version, tick, part], self._world.requests[tick, part]
            for column, values in enumerate((bad, total, bad * bad, bad * total, total * total)):
                self._moments[version, :, column] += np.bincount(classes, values, len(CLASSES))

    def evidence(self) -> Evidence:
        """Return the evidence so far."""
        return Evidence(canary=self._arm(1), control=self._arm(0))

    def _arm(self, version: int) -> Arm:
        strata = {
            f"hardware={name}": self._part(version, number)
            for number, name in enumerate(CLASSES)
            if self._devices[version, number]
        }
        whole = Arm.empty(1)
        for arm in strata.values():
            whole = whole.plus(arm)
        return Arm(whole.devices, whole.windows, 0, whole.tallies, strata if self._by_class else {})

    def _part(self, version: int, number: int) -> Arm:
        bad, total, bad_squared, cross, total_squared = map(float, self._moments[version, number])
        cells = self._cells[version, number]
        tally = Tally(
            bad=int(bad),
            total=int(total),
            bad_squared=bad_squared,
            cross=cross,
            total_squared=total_squared,
            cells={int(cell): int(cells[cell]) for cell in cells.nonzero()[0]},
        )
        devices = int(self._devices[version, number])
        return Arm(devices, devices * self._ticks, 0, (tally,))


def series(world: World, rule: Fixed) -> tuple[Floats, list[int]]:
    """Return the value of each check, and how many devices have the version by then."""
    values: list[float] = []
    exposed: list[int] = []
    for number, reach in enumerate(reaches()):
        for begin in range(number * rule.bake, (number + 1) * rule.bake, rule.interval):
            ticks = slice(begin, begin + rule.interval)
            values.append(_value(world, rule, ticks, reach))
            exposed.append(reach)
    return np.array(values), exposed


def run_fixed(values: Floats, exposed: list[int], rule: Fixed, threshold: float) -> End:
    """Return how a fixed threshold ends the rollout.

    Args:
        values: From `series`.
        exposed: Likewise.
        rule: Which rule.
        threshold: A higher value is a failed check.
    """
    row = 0
    for check, value in enumerate(values):
        row = row + 1 if value > threshold else 0
        if row >= rule.failures:
            return End(Outcome.FAIL, exposed[check], (check + 1) * rule.interval)
    return End(Outcome.PASS, DEVICES, len(values) * rule.interval)


def peak(values: Floats, rule: Fixed) -> float:
    """Return the largest threshold that would still roll back, nearly."""
    rows = np.lib.stride_tricks.sliding_window_view(values, rule.failures)
    return float(rows.min(axis=1).max())


def _value(world: World, rule: Fixed, ticks: slice, reach: int) -> float:
    if world.durations.size:
        return _latency(world, rule, ticks, reach)
    errors, requests = world.errors[1, ticks, :reach], world.requests[ticks, :reach]
    if rule.kind == "devices":
        return float((errors.sum(axis=0) > DEVICE_FAILED * requests.sum(axis=0)).mean())
    share = errors.sum() / requests.sum()
    if rule.kind == "difference" and reach < DEVICES:
        share -= world.errors[0, ticks, reach:].sum() / world.requests[ticks, reach:].sum()
    return float(share)


def _latency(world: World, rule: Fixed, ticks: slice, reach: int) -> float:
    """Return the latency that nine in ten do not exceed, in buckets."""
    canary = world.durations[1, ticks, :reach]
    late = float(np.quantile(canary, LATE))
    if rule.kind == "difference" and reach < DEVICES:
        late -= float(np.quantile(world.durations[0, ticks, reach:], LATE))
    return late
