"""Who has a device: of the rollouts of a model that are under way, at most one has it.

A rollout *claims* its devices when it starts, and keeps each until it ends, or gave up the device before it
was ordered. A rollout that was only created claims nothing. Two rollouts that reach one device::

    the other one                        when the new one is created      when it starts
    ───────────────────────────────────  ───────────────────────────────  ────────────────────────────────────
    of equal priority                    the new one is refused           the start is refused
    of a lower one, not ordered yet      -                                the new one takes the device
    of a lower one, ordered              -                                the device stays with the other one
    of a higher one                      -                                the device stays with the other one

A new one of which every device would stay with others is refused as well. An operator's rollback is above
every priority, and what it reaches it takes by putting the others aside (`Supersede`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fleet import sentences
from fleet.protocol.errors import InvalidPlan
from fleet.rollout.state.columns import CANCELED, PAGE_SIZE, Mask, Places, Rows
from fleet.rollout.state.deployments import Deployments, blocks, scan, split
from fleet.rollout.state.masks import was_sent
from fleet.rollout.state.rollout import Kind, Rollout, Status, Summary

_NAMED = 5


class Claim(NamedTuple):
    """That a rollout which has not ended reaches a device.

    Attributes:
        device_id: The device.
        rollout: Number of the rollout.
        priority: Of the rollout, see `priority_of`.
        is_ordered: Whether the device was sent its order already.
        is_started: Whether the rollout was started; else it has the device only if it starts first.
    """

    device_id: str
    rollout: int
    priority: float
    is_ordered: bool
    is_started: bool = True


class Settlement(NamedTuple):
    """Which of two rollouts has a device that both reach.

    Attributes:
        taken: Devices that the new one takes, and from which rollout.
        left: Devices that stay with the rollout they are in.
    """

    taken: dict[str, int]
    left: dict[str, int]


class ClaimChanges(NamedTuple):
    """Devices that a rollout claims no more, and those that it claims now."""

    ended: list[str]
    begun: list[str]


def priority_of(rollout: Summary) -> float:
    """Return the priority that a rollout has among others: the plan's, or for a rollback the highest."""
    return math.inf if rollout.kind is Kind.ROLLBACK else rollout.plan.priority


def claims_of(rollout: Rollout) -> Iterator[Claim]:
    """Yield the claim of a rollout on each device that it has or, not yet started, would have."""
    if rollout.status.is_final:
        return
    pages = rollout.deployments.pages
    ordered = np.concatenate([was_sent(rows)[_is_held(rows)] for _, rows in blocks(pages)])
    device_ids = rollout.deployments.members.device_ids(scan(pages, _is_held))
    priority, is_started = priority_of(rollout), rollout.status is not Status.CREATED
    for device_id, is_ordered in zip(device_ids, ordered.tolist(), strict=True):
        yield Claim(device_id, rollout.number, priority, is_ordered, is_started)


def changed_claims(before: Rollout | None, after: Rollout) -> ClaimChanges:
    """Return what a step changed about the devices that a rollout has.

    Args:
        before: The state before the step; None for a rollout that is new.
        after: The state after it.
    """
    had, has = before is not None and _claims(before), _claims(after)
    if before is not None and had and has:
        if _canceled(before) == _canceled(after) and len(before.deployments) == len(after.deployments):
            return ClaimChanges([], [])  # nobody was given up, and nobody joined: reports are cheap
        places = after.deployments.changed_since(before.deployments)
        known = places[places < len(before.deployments)]
        held, holds = _held(before.deployments, known), _held(after.deployments, places)
        return ClaimChanges(sorted(held - holds), sorted(holds - held))
    if before is not None and had:
        return ClaimChanges(sorted(_held(before.deployments)), [])
    return ClaimChanges([], sorted(_held(after.deployments)) if has else [])


def keeps(claim: Claim, priority: float) -> bool:
    """Whether a device stays with the rollout it is in, when one of another priority reaches it too."""
    return claim.priority >= priority or claim.is_ordered


def settle_claims(members: Collection[str], priority: float, claims: Iterable[Claim]) -> Settlement:
    """Decide about the devices of a new rollout that others of the model reach, see the head of this file.

    Args:
        members: Devices of the new rollout; a set, for speed.
        priority: Of it, see `priority_of`.
        claims: Of the rollouts of the same model that have not ended.

    Raises:
        InvalidPlan: Another rollout of the same priority reaches some of the devices, or all of them stay
            where they are.
    """
    taken: dict[str, int] = {}
    left: dict[str, int] = {}
    equal: dict[str, int] = {}
    for claim in claims:
        if claim.device_id not in members:
            continue
        if claim.priority == priority:
            equal[claim.device_id] = claim.rollout
        elif keeps(claim, priority):
            left[claim.device_id] = claim.rollout
        else:
            taken[claim.device_id] = claim.rollout
    if equal:
        raise InvalidPlan(
            f"priority: {_rollouts(equal)} of the same priority, {priority:g}, reaches {named(equal)} too.",
            remedy="Wait until it ends, abort it, choose other devices, or give this one another priority.",
            field="priority",
        )
    for device_id in left:
        taken.pop(device_id, None)
    if left and len(left) == len(members):
        raise InvalidPlan(
            f"priority: {_rollouts(left)} keeps every device of this one: {named(left)}.",
            remedy="Wait until it ends, abort it, or choose other devices; what it has ordered it keeps"
            " whatever the priority.",
            field="priority",
        )
    return Settlement(taken, left)


def named(devices: Mapping[str, int]) -> str:
    """Return how many devices these are, the first few by name, such as ``2 devices (cam-1, cam-2)``."""
    names = ", ".join(sorted(devices)[:_NAMED])
    more = f" and {len(devices) - _NAMED:,} more" if len(devices) > _NAMED else ""
    return f"{sentences.devices(len(devices))} ({names}{more})"


def never_ordered(rows: Rows) -> Mask:
    """Tell which devices wait for their first order."""
    return np.asarray(~was_sent(rows) & _is_held(rows))


def _rollouts(devices: Mapping[str, int]) -> str:
    return "rollout " + ", ".join(str(number) for number in sorted(set(devices.values())))


def _claims(rollout: Rollout) -> bool:
    return rollout.status is not Status.CREATED and not rollout.status.is_final


def _canceled(rollout: Summary) -> int:
    return sum(counts[1 + CANCELED] for counts in rollout.tally)


def _is_held(rows: Rows) -> Mask:
    return np.asarray((rows["state"] != CANCELED) | was_sent(rows))


def _held(deployments: Deployments, places: Places | None = None) -> set[str]:
    """Return the devices that are claimed, of those at some places or of all."""
    if places is None:
        places = scan(deployments.pages, _is_held)
    else:
        found = [
            number * PAGE_SIZE + inside[_is_held(deployments.pages[number].rows[inside])]
            for number, inside in split(places)
        ]
        places = np.concatenate(found) if found else places[:0]
    return set(deployments.members.device_ids(places))
