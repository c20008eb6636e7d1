"""How well gates decide by the other evidence, and with a device that lies: part of ``make bench-gates``.

A small fleet for each kind of evidence (`gates_kinds`): 200 devices, of which 40, then 190 get the version,
ten in the time of a window; the last ten are controls to the end. Every device sends windows, and they are
read and added up by the engine's own `fleet.rollout.gates.sums`. What a device counts falls into cells by a
distribution of its own, around one that drifts with the hour for both sides.

**One that lies.** In the last worlds one device, a canary or a control, claims in five windows of 100,000
answers each, in the time of every honest one, that all requests failed, or that none did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TextIO

import msgspec
import numpy as np

from benchmarks.aims import Aim
from benchmarks.gates_kinds import ERRORS, KINDS, Kind, window_of
from benchmarks.gates_worlds import Floats
from benchmarks.table import table
from fleet.protocol.records import ShadowReport, TelemetryWindow
from fleet.rollout.gates.evidence import Arm, Evidence
from fleet.rollout.gates.gate import Outcome, judge
from fleet.rollout.gates.groups import GROUPS, group_of
from fleet.rollout.gates.spans import span_of
from fleet.rollout.gates.sums import ArmSum
from fleet.rollout.gates.windows import MOST_ANSWERS
from fleet.rollout.plans.plan import Gate, JudgedBy, Metric, MetricGate, Plan, Stage

DEVICES = 200
REACHES = (40, 190, 200)
PACE = 10
MINIMUM_BAKE, MAXIMUM_BAKE = 3, 20
CORRELATION = 0.001
TARGET = 0.01
FOUND = 0.95
LIES = 5


class Lie(NamedTuple):
    """What one device does.

    Attributes:
        is_canary: Whether it is the canaries' first, or the last of the controls.
        all_bad: Whether it claims that all requests failed, or that none did.
    """

    is_canary: bool
    all_bad: bool


class End(NamedTuple):
    """How a rollout ended.

    Attributes:
        outcome: FAIL: rolled back; PASS: it reached everybody; INCONCLUSIVE, ERROR: paused.
        exposed: How many devices got the version.
        ticks: How long it took.
    """

    outcome: Outcome
    exposed: int
    ticks: int


LIES_TOLD = (
    ("one canary lies: all bad", False, Lie(is_canary=True, all_bad=True)),
    ("one control lies: all good", False, Lie(is_canary=False, all_bad=False)),
    ("one canary lies: all good", True, Lie(is_canary=True, all_bad=False)),
    ("one control lies: all bad", True, Lie(is_canary=False, all_bad=True)),
)


def run(kind: Kind, rng: np.random.Generator, *, is_harmful: bool, lie: Lie | None = None) -> End:
    """Return how a rollout ends.

    Args:
        kind: Of the evidence.
        rng: Draws the world.
        is_harmful: Whether the version is.
        lie: What one device does besides.
    """
    plan, fleet = _plan(kind.gate), _Fleet(kind, rng, is_harmful=is_harmful, lie=lie)
    stages: list[Evidence] = []
    tick = have = 0
    for number, reach in enumerate(REACHES):
        heard, spans, baked = _Heard(kind.gate), set[int](), 0
        is_judged = number < len(REACHES) - 1
        while baked <= MAXIMUM_BAKE * is_judged:
            have = min(reach, have + PACE)
            span = span_of(have, DEVICES - have, canaries_at_end=reach, controls_at_end=DEVICES - reach)
            spans.add(span)
            heard.add(fleet.windows(tick, have), have, span)
            tick, baked = tick + 1, baked + (have == reach)
            evidence = heard.evidence()
            verdict = judge(
                plan, (*stages, evidence), has_control=have < DEVICES, heard=reach, expected=reach
            )
            if verdict.outcome in {Outcome.FAIL, Outcome.ERROR}:  # both end it at once
                return End(verdict.outcome, have, tick)
            if verdict.outcome is Outcome.PASS and baked > MINIMUM_BAKE:
                break
        if is_judged and verdict.outcome is not Outcome.PASS:
            return End(verdict.outcome, have, tick)
        stages.append(evidence.sums)
    return End(Outcome.PASS, DEVICES, tick)


def _plan(gate: MetricGate) -> Plan:
    judged_by = [JudgedBy.GATE] * (len(REACHES) - 1) + [JudgedBy.INSTALLS]
    stages = tuple(
        Stage(devices=reach, judged_by=by, minimum_bake_s=1.0, maximum_bake_s=2.0)
        for reach, by in zip(REACHES, judged_by, strict=True)
    )
    return Plan(stages=stages, gate=Gate(metrics=(gate,), error_budget=TARGET), shadow_s=60)


class _Fleet:
    """What the devices of a world say, by time."""

    def __init__(self, kind: Kind, rng: np.random.Generator, *, is_harmful: bool, lie: Lie | None) -> None:
        self._kind, self._rng, self._lie = kind, rng, lie
        self._phase = float(rng.uniform(0.0, 6.3))
        of_hours = [(p, kind.harmed(p) if is_harmful else p) for p in kind.drawn(rng)]
        if kind.gate.metric is Metric.MEMORY:  # each device has its own, today and tomorrow
            own = rng.choice(len(of_hours[0][0]), DEVICES, p=of_hours[0][0])
            eye = np.eye(len(of_hours[0][0]))
            sides = np.stack(
                [eye[own], np.stack([kind.harmed(row) for row in eye[own]]) if is_harmful else eye[own]]
            )
            self._hours = (sides, sides)
            return
        size = 1.0 / CORRELATION - 1.0
        state = int(rng.integers(2**32))

        def differing(versions: tuple[Floats, Floats]) -> Floats:
            same = [np.random.default_rng(state) for _ in versions]  # a device is as it is under both
            each = [one.dirichlet(p * size + 1e-9, DEVICES) for one, p in zip(same, versions, strict=True)]
            return np.stack(each)

        self._hours = differing(of_hours[0]), differing(of_hours[1])

    def windows(self, tick: int, have: int) -> Iterator[tuple[int, TelemetryWindow | ShadowReport]]:
        """Yield what devices say in the time of a window, and where they stand in the order."""
        hour = 0.5 + 0.5 * np.sin(tick / 6.0 + self._phase)
        old, new = (1.0 - hour) * self._hours[0] + hour * self._hours[1]
        shares = np.concatenate((new[:have], old[have:]))
        drawn = self._rng.multinomial(self._kind.answers, shares / shares.sum(axis=1, keepdims=True))
        liar = -1
        if self._lie is not None:
            liar = 0 if self._lie.is_canary else DEVICES - 1
        for place, counts in enumerate(drawn.tolist()):
            if place != liar:
                yield place, self._kind.told(counts)
        if self._lie is not None and self._lie.is_canary == (liar < have):
            claim = [0, MOST_ANSWERS] if self._lie.all_bad else [MOST_ANSWERS, 0]
            yield from [(liar, self._kind.told(claim))] * LIES


class _Heard:
    """Evidence of a stage, as the engine adds it up."""

    def __init__(self, gate: MetricGate) -> None:
        self._gate, self._known = gate, set[tuple[int, bool]]()
        self._sums: dict[tuple[int, int, bool], ArmSum] = {}

    def add(self, said: Iterator[tuple[int, TelemetryWindow | ShadowReport]], have: int, span: int) -> None:
        """Add what devices say, of which so many have the version."""
        for place, one in said:
            key = (span, group_of(place), place < have)
            if (arm := self._sums.get(key)) is None:
                arm = self._sums[key] = ArmSum((self._gate,))
            if isinstance(one, ShadowReport):
                if place >= have:
                    continue
                arm.add_shadow(one)
                one = window_of()  # noqa: PLW2901 - the canary's own
            why = arm.add(one, is_new=(place, place < have) not in self._known)  # as a canary, it is another
            assert why is None, why
            self._known.add((place, place < have))

    def evidence(self) -> Evidence:
        """Return all of it."""
        whole, nothing = Evidence.empty(1), Arm.empty(1)
        arms = {key: arm.arm() for key, arm in self._sums.items()}
        for span in {span for span, _, _ in arms}:
            for group in range(GROUPS):
                part = Evidence(
                    arms.get((span, group, True), nothing), arms.get((span, group, False), nothing)
                )
                whole = whole.plus(msgspec.structs.replace(part, groups={group: part}).during(span))
        return whole


def measure(counts: tuple[int, int], seed: int, progress: TextIO) -> tuple[str, list[Aim]]:
    """Return the table, and the aims.

    Args:
        counts: Of harmless and of harmful rollouts of each kind.
        seed: Of the worlds.
        progress: Gets a line for each kind when it is done.
    """
    rows: list[list[str]] = []
    aims: list[Aim] = []
    cases: list[tuple[Kind, str, bool, Lie | None]] = [
        (kind, kind.gate.metric.value, is_harmful, None) for kind in KINDS for is_harmful in (False, True)
    ]
    cases += [(ERRORS, name, is_harmful, lie) for name, is_harmful, lie in LIES_TOLD]
    for kind, name, is_harmful, lie in cases:
        ends = [
            run(kind, np.random.default_rng([seed, number]), is_harmful=is_harmful, lie=lie)
            for number in range(counts[is_harmful and lie is None])
        ]
        rows.append(_row(name, is_harmful, ends))
        aims += _aims(kind, name, is_harmful, lie, ends)
        progress.write(f"  {name}\n")
    columns = [
        "evidence",
        "version",
        "rollouts",
        "rolled back",
        "error",
        "paused",
        "passed",
        "exposed",
        "windows",
    ]
    notes = (f"{DEVICES} devices; inputs that differ are nobody's harm: an error, and the rollout pauses.",)
    return table("Other evidence", columns, rows, notes), aims


def _share(ends: Sequence[End], outcome: Outcome) -> float:
    return sum(end.outcome is outcome for end in ends) / len(ends)


def _row(name: str, is_harmful: bool, ends: list[End]) -> list[str]:
    outcomes = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASS)
    return [
        name,
        "harmful" if is_harmful else "harmless",
        f"{len(ends)}",
        *(f"{_share(ends, outcome):.3f}" for outcome in outcomes),
        f"{np.mean([end.exposed for end in ends]):.0f}",
        f"{np.median([end.ticks for end in ends]):.0f}",
    ]


def _aims(kind: Kind, name: str, is_harmful: bool, lie: Lie | None, ends: list[End]) -> list[Aim]:
    slug = "-".join(name.replace("_", " ").replace(":", "").split())
    if not is_harmful or kind.of_inputs:
        aims = [
            Aim(
                f"false-rollbacks-{slug}{'-that-differ' * is_harmful}",
                _share(ends, Outcome.FAIL),
                "<=",
                TARGET,
            )
        ]
        found = [Aim(f"{slug}-told", _share(ends, Outcome.ERROR), ">=", FOUND)] if is_harmful else []
        return aims + found
    if lie is not None:
        return [Aim(f"harm-passed-{slug}", _share(ends, Outcome.PASS), "<=", TARGET)]
    return [Aim(f"harm-found-{slug}", _share(ends, Outcome.FAIL), ">=", FOUND)]
