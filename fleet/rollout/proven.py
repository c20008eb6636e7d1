"""Which versions of a model are proven, by what its rollouts came to, and to which one devices go back.

::

    rejected   the last rollout that came to a word about it was taken back, FAILED, or was aborted while its
               gate said FAIL; or a rollback by command has led below it since; nobody is led there but by
               name
    proven     not rejected, and a rollout of it SUCCEEDED or ended its last stage by the gate

    some devices go back to the newest released version below what they should run that is

        1. not rejected, and was run by all of them, or is proven and was run by some of them
        2. proven

What a device has *run* is what a rollout brought it and it committed. A version that no rollout brought is
not proven: it was released, and that is all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from fleet.rollout.gates.gate import Outcome
from fleet.rollout.state.rollout import Kind, Status, Summary

Ran = Callable[[Collection[int], Collection[str]], Collection[str]]
"""Returns which of some devices committed what some rollouts, by number, brought."""
_TAKEN_BACK = frozenset({Status.ROLLED_BACK, Status.FAILED})


class Standing(NamedTuple):
    """What the rollouts of a version say of it.

    Attributes:
        rejected: Why nobody is led to it but by name, without the end of a sentence; empty if that is not so.
        has_passed: Whether a rollout of it SUCCEEDED or ended its last stage by the gate.
        brought_by: Numbers of the rollouts and rollbacks that brought it.
    """

    rejected: str = ""
    has_passed: bool = False
    brought_by: tuple[int, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether it is, see the head of this file."""
        return self.has_passed and not self.rejected


NEVER_BROUGHT = Standing()


def standings(rollouts: Iterable[Summary]) -> dict[int, Standing]:
    """Return what is to be said of each version that was brought to devices.

    Args:
        rollouts: Of one model, newest first.
    """
    found: dict[int, Standing] = {}
    judged: set[int] = set()
    lowest: Summary | None = None
    for rollout in rollouts:
        if not rollout.stages:
            continue  # it never began
        version = rollout.version
        known = found.get(version, NEVER_BROUGHT)
        rejected, has_passed = known.rejected, known.has_passed
        if rollout.kind is Kind.ROLLBACK:
            lowest = rollout if lowest is None or version < lowest.version else lowest
        else:
            has_passed = has_passed or _has_passed(rollout)
            if version not in judged:
                rejected = _rejected(rollout, lowest)
                if rejected or _has_passed(rollout):
                    judged.add(version)
        found[version] = Standing(rejected, has_passed, (*known.brought_by, rollout.number))
    return found


def way_back(
    below: Mapping[str, int], candidates: Iterable[int], known: Mapping[int, Standing], ran: Ran
) -> int | None:
    """Return the version that devices go back to, see the head of this file; None if there is none.

    Args:
        below: The devices, and the version that each of them leaves; it goes to an older one only.
        candidates: Released versions, newest first.
        known: Of `standings`.
        ran: Tells who committed what.
    """
    proven: int | None = None
    for version in candidates:
        standing = known.get(version, NEVER_BROUGHT)
        moving = [device_id for device_id, left in below.items() if left > version]
        if standing.rejected or not standing.brought_by or not moving:
            continue
        count = len(ran(standing.brought_by, moving))
        if count == len(moving) or (count and standing.is_proven):
            return version
        if standing.is_proven and proven is None:
            proven = version
    return proven


def doubt(version: int, devices: Collection[str], known: Mapping[int, Standing], ran: Ran) -> str:
    """Return why these devices would not be led to a version but by name, a sentence; empty if they would.

    Args:
        version: The version.
        devices: Who would go back to it.
        known: Of `standings`.
        ran: Tells who committed what.
    """
    standing = known.get(version, NEVER_BROUGHT)
    if standing.rejected:
        return f"Version {version} is rejected: {standing.rejected}."
    if standing.is_proven or (standing.brought_by and len(ran(standing.brought_by, devices)) == len(devices)):
        return ""
    why = "no rollout of it has succeeded, and not all of these devices ran it before"
    return f"Version {version} is not proven: {why}."


def _has_passed(rollout: Summary) -> bool:
    if rollout.status is Status.SUCCEEDED:
        return True
    last = rollout.stages[-1]
    is_last = len(rollout.stages) == len(rollout.plan.stages)
    return is_last and last.ended_s is not None and not last.overridden


def _rejected(last: Summary, lowest: Summary | None) -> str:
    """Return why a version is rejected.

    Args:
        last: The last rollout of it.
        lowest: Of the rollbacks by command after it the one that led to the oldest version.
    """
    if last.status in _TAKEN_BACK or last.ending is Status.ROLLED_BACK:
        return f"its last rollout, {last.number}, {_became(last.status)}"
    if last.status is Status.ABORTED and last.verdict is not None and last.verdict.outcome is Outcome.FAIL:
        return f"the gate of its last rollout, {last.number}, said FAIL"
    if lowest is not None and lowest.version < last.version:
        return f"rollback {lowest.number} led back to version {lowest.version} since"
    return ""


def _became(status: Status) -> str:
    return "is being taken back" if status is Status.ROLLING_BACK else f"was {status.value}"
