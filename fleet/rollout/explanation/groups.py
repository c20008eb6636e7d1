"""Who holds a rollout up, and who did not follow: devices grouped by reason, the first few by name.

How many there are of each state is known from the rollout's tally. What only the devices themselves tell,
that one is offline or held, is known of the first `LOOKED_AT` that were ordered and have not ended: the shell
reads these and no others, and the rest is told by state alone. So an explanation costs the same however large
the fleet is, but for a look through the columns.

Devices that have the version ready say themselves what they wait for: the `NAMED` most frequent sentences are
a group each, the others one together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.explanation.reasons import (
    BY_STATE,
    SAID,
    Facts,
    Reason,
    detail_of,
    heard_of,
    reason_of,
)
from fleet.rollout.explanation.silence import Silence, silences
from fleet.rollout.state.columns import CODES, WAITING, Deployment, Mask, Places, Rows
from fleet.rollout.state.deployments import scan
from fleet.rollout.state.masks import (
    Test,
    goes_back,
    has_failed,
    is_under_way,
    is_under_way_back,
    waits,
    waits_back,
)
from fleet.rollout.state.rollout import Rollout, Status
from fleet.sentences import rough_duration

LOOKED_AT = 500
NAMED = 5
_ONLINE = Facts(is_online=True)
_FAILURES = tuple(state for state in DeploymentState if state.is_failure)


class Example(msgspec.Struct, frozen=True):
    """One device of a group, and what is to be said of it alone."""

    device_id: str
    detail: str


class Group(msgspec.Struct, frozen=True):
    """Devices that share a reason.

    Attributes:
        reason: Why they have not ended, or how they ended.
        code: Of the cause that they share; empty if they have none.
        devices: How many they are.
        said: What they are, for people.
        examples: The first of them, `NAMED` at most.
    """

    reason: Reason
    code: str
    devices: int
    said: str
    examples: tuple[Example, ...]


def concerned(rollout: Rollout) -> list[str]:
    """Return the devices of which an explanation needs `Facts`.

    They are those that are ordered and have not ended, the first `LOOKED_AT`, and those silent ones that are
    named.
    """
    silent = [part for side in silences(rollout) for part in _named(rollout, side.silent)]
    return [part.device_id for part in (*_looked_at(rollout), *silent)]


def under_way(rollout: Rollout) -> int:
    """Return how many devices have their order, in the direction in which the rollout goes, and not ended."""
    if rollout.status is Status.ROLLING_BACK:
        return len(_places(rollout, is_under_way_back))
    return sum(_ordered(rollout).values())


def held_up_by(
    rollout: Rollout, facts: Mapping[str, Facts], silent: Sequence[Silence], now_s: float
) -> tuple[Group, ...]:
    """Return the devices that have not ended and are to, or that the gate misses, the largest group first.

    Args:
        rollout: Any.
        facts: Of those of `concerned`; others are taken to be online.
        silent: Of whom the gate hears nothing.
        now_s: Hub time, Unix seconds.
    """
    if rollout.status.is_final or not rollout.stages:
        return ()
    found, is_back = _Found(), rollout.status is Status.ROLLING_BACK
    rest = {DeploymentState.QUEUED: under_way(rollout)} if is_back else _ordered(rollout)
    looked_at = [(part, facts.get(part.device_id, _ONLINE)) for part in _looked_at(rollout)]
    reasons = [reason_of(rollout, part, known) for part, known in looked_at]
    frequent = _frequent(
        known.waits_for for (_, known), why in zip(looked_at, reasons, strict=True) if why is Reason.WAITS
    )
    for (part, known), reason in zip(looked_at, reasons, strict=True):
        detail, said = detail_of(rollout, part, known, reason, now_s), ""
        if reason is Reason.WAITS and known.waits_for in frequent:
            said = f"ready, and waiting: {known.waits_for}"
        elif reason is Reason.WAITS:
            detail = f"{known.waits_for} {detail}"
        found.add(reason, part, detail, said=said)
        rest[DeploymentState.QUEUED if is_back else part.attempt.state] -= 1
    for state, count in rest.items():
        found.add_more(BY_STATE[state], count)
    for reason, test in _unordered(rollout).items():
        places = _places(rollout, test)
        for part in _named(rollout, places):
            due = "" if part.due_s is None else f"due in {rough_duration(part.due_s - now_s)}"
            found.add(reason, part, due)
        found.add_more(reason, len(places) - NAMED)
    for side in silent:
        for part in _named(rollout, side.silent):
            found.add(side.reason, part, _whereabouts(facts.get(part.device_id, _ONLINE), now_s))
        found.add_more(side.reason, len(side.silent) - NAMED)
    return found.groups()


def not_following(rollout: Rollout) -> tuple[Group, ...]:
    """Return the devices that ended without running the version, by how and why; the largest group first."""
    found, counts = _Found(), rollout.counts
    rest = {state: counts.get(state, 0) for state in _FAILURES}
    for part in rollout.deployments.where(has_failed, limit=LOOKED_AT):
        cause, state = part.attempt.cause, part.attempt.state
        found.add(BY_STATE[state], part, cause.detail if cause else "", code=cause.code if cause else "")
        rest[state] -= 1
    for state, count in rest.items():
        found.add_more(BY_STATE[state], count)
    return found.groups()


class _Kind(NamedTuple):
    """What the devices of a group have in common."""

    reason: Reason
    code: str = ""
    said: str = ""


class _Found:
    """Groups as they are found."""

    def __init__(self) -> None:
        self._counts: Counter[_Kind] = Counter()
        self._examples: dict[_Kind, list[Example]] = {}

    def add(self, reason: Reason, part: Deployment, detail: str, *, code: str = "", said: str = "") -> None:
        """Add a device that was looked at."""
        kind = _Kind(reason, code, said)
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < NAMED:
            examples.append(Example(part.device_id, detail))

    def add_more(self, reason: Reason, count: int) -> None:
        """Add devices that were not."""
        if count > 0:
            self._counts[_Kind(reason)] += count

    def groups(self) -> tuple[Group, ...]:
        """Return the groups, the largest first."""
        return tuple(
            Group(
                kind.reason,
                kind.code,
                self._counts[kind],
                kind.said or SAID[kind.reason],
                tuple(self._examples.get(kind, ())),
            )
            for kind in sorted(self._counts, key=lambda kind: (-self._counts[kind], kind))
        )


def _frequent(sentences: Iterable[str]) -> set[str]:
    return {sentence for sentence, _ in Counter(sentences).most_common(NAMED)}


def _named(rollout: Rollout, places: Places) -> list[Deployment]:
    return list(rollout.deployments.at(places[:NAMED]))


def _whereabouts(known: Facts, now_s: float) -> str:
    """Return where a device is that the gate hears nothing of."""
    if known.is_quarantined:
        return SAID[Reason.QUARANTINED]
    return f"{'connected' if known.is_online else 'offline'}, {heard_of(known, now_s)}"


def _looked_at(rollout: Rollout) -> list[Deployment]:
    test = is_under_way_back if rollout.status is Status.ROLLING_BACK else is_under_way
    return list(rollout.deployments.where(test, limit=LOOKED_AT)) if rollout.stages else []


def _ordered(rollout: Rollout) -> dict[DeploymentState, int]:
    """Count the devices on their way forward by state."""
    states = [state for state in DeploymentState if not state.is_terminal]
    return {state: sum(counts[1 + CODES[state]] for counts in rollout.tally) for state in states}


def _unordered(rollout: Rollout) -> dict[Reason, Test]:
    """Return who waits for an order, and how to find them."""
    if rollout.status is Status.ROLLING_BACK:
        return {Reason.PACE: waits_back}
    current = rollout.stage_index
    found: dict[Reason, Test] = {}
    if not rollout.revoked and any(counts[WAITING] for counts in rollout.tally[: current + 1]):
        found[Reason.PACE] = lambda rows: _waits_in(rows, current) & np.isnan(rows["due_s"])
        found[Reason.RETRY] = lambda rows: _waits_in(rows, current) & ~np.isnan(rows["due_s"])
    if rollout.open_restores:
        found[Reason.GOING_BACK] = goes_back
    return found


def _places(rollout: Rollout, test: Test) -> Places:
    return scan(rollout.deployments.pages, test)


def _waits_in(rows: Rows, current: int) -> Mask:
    """Tell which devices wait for their order in a stage that has begun."""
    return np.asarray(waits(rows) & (rows["stage"] <= current))
