"""Devices that join a rollout while it is under way.

A joiner is put after all devices there are, into the stage that its own hash or the cohorts say, and that has
room (`fleet.rollout.targeting.stage_of`): nobody joins a stage of a count that has as many. If that stage has
begun, the device waits for its order like the others, as fast as the plan allows, and the rollout cannot end
without it; otherwise it waits for its stage. Who finds no room in any stage is left out.
"""

from __future__ import annotations

import numpy as np

from fleet.rollout import joined
from fleet.rollout.events import DevicesJoined, Joiner
from fleet.rollout.plans.plan import Membership
from fleet.rollout.stages import size_of
from fleet.rollout.state.deployments import waiting_rows
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Status
from fleet.rollout.targeting import fraction, lot_limits, rooms, stage_of


def take_in(draft: Draft, event: DevicesJoined) -> None:
    """Take devices in; one that is known or runs the version, or came too late, changes nothing."""
    rollout = draft.rollout
    if rollout.plan.membership is not Membership.CONTINUOUS or rollout.revoked:
        return
    if rollout.status not in {Status.CREATED, Status.RUNNING, Status.PAUSED}:
        return
    found = {device.device_id: device for device in event.devices}
    new, stages = _placed(draft, [device for device in found.values() if _is_new(draft, device)])
    if not new:
        return
    first = len(draft.editing)
    code = {name: place for place, name in enumerate(rollout.strata)}
    strata = np.array([code.get(device.stratum, 0) for device in new], dtype=np.uint16)
    versions = [device.version for device in new]
    rows = waiting_rows(versions, np.array(stages, dtype=np.uint8), draft.now_s, strata)
    draft.extend([device.device_id for device in new], rows)
    _count(draft, stages, versions)
    draft.change(cursor=min(draft.rollout.cursor, first))
    joined.note(draft, stages)


def _is_new(draft: Draft, device: Joiner) -> bool:
    return device.version != draft.rollout.version and draft.editing.members.place(device.device_id) is None


def _placed(draft: Draft, devices: list[Joiner]) -> tuple[list[Joiner], list[int]]:
    """Return the devices for which there is room, and the stage of each."""
    seed, stages = draft.rollout.seed, draft.rollout.plan.stages
    limits = lot_limits(stages, draft.rollout.cohort_ends)
    sizes = [size_of(draft, place) for place in range(len(stages))]
    placed, places = list[Joiner](), list[int]()
    for device in devices:
        lot = fraction(seed, device.device_id)
        place = stage_of(lot, stages, limits, rooms(stages, sizes), device.matching)
        if place is not None:
            sizes[place] += 1
            placed.append(device)
            places.append(place)
    return placed, places


def _count(draft: Draft, stages: list[int], versions: list[int | None]) -> None:
    """Let the stages that have begun, and the control arm, know of the joiners."""
    current = draft.rollout.stage_index
    for number in sorted({stage for stage in stages if stage <= current}):
        progress, more = draft.rollout.stages[number], stages.count(number)
        draft.change_stage(number, size=progress.size + more, open=progress.open + more)
    later = [v for stage, v in zip(stages, versions, strict=True) if stage > current and v is not None]
    if current >= 0 and later:
        draft.change(controls=draft.rollout.controls + len(later), verdict=None)
    elif any(stage <= current for stage in stages):
        draft.change(verdict=None)
