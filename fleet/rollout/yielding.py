"""Devices that a rollout yields to another one of a higher priority, see `fleet.rollout.claims`.

Only what was never ordered is yielded. It ends as CANCELED with that cause and counts neither as failed nor
as success: its stage is smaller by it, and where it would have been a control there is one less. A stage of
which nobody is left proves nothing, so the rollout pauses there while others wait behind it
(`fleet.rollout.rules`).
"""

from __future__ import annotations

import numpy as np

from fleet.protocol.errors import Cause
from fleet.rollout.claims import named, never_ordered
from fleet.rollout.events import DevicesTaken
from fleet.rollout.state.columns import CANCELED, NO_VERSION, Places
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import CauseCode, Happening, Status


def give_up(draft: Draft, event: DevicesTaken) -> None:
    """Give up devices; those that were ordered, or are not of this rollout, stay as they are."""
    if draft.rollout.status not in {Status.RUNNING, Status.PAUSED}:
        return
    known = {draft.editing.members.place(device_id) for device_id in event.device_ids}
    waiting = draft.editing.where(never_ordered)
    places = waiting[np.isin(waiting, [place for place in known if place is not None])]
    if len(places) == 0:
        return
    device_ids = draft.editing.members.device_ids(places)
    what = named(dict.fromkeys(device_ids, event.rollout))
    text = f"Rollout {event.rollout}, of the higher priority {event.priority}, took {what}."
    _uncount(draft, places)
    draft.editing.assign(
        places,
        state=CANCELED,
        since_s=draft.now_s,
        cause=Cause(CauseCode.SUPERSEDED.value, f"Rollout {event.rollout} of a higher priority took it."),
    )
    draft.change(verdict=None)
    draft.decide(Happening.DEVICES_TAKEN, text)


def _uncount(draft: Draft, places: Places) -> None:
    """Let the stages that have begun, and the control arm, be without these devices."""
    rollout = draft.rollout
    stages = draft.editing.column("stage", places)
    current = rollout.stage_index
    for number in np.unique(stages[stages <= current]).tolist():
        count, progress = int((stages == number).sum()), rollout.stages[number]
        draft.change_stage(number, size=progress.size - count, open=progress.open - count)
    versions = draft.editing.column("previous_version", places)
    controls = int(((stages > current) & (versions != NO_VERSION)).sum())
    if current >= 0 and controls:
        draft.change(controls=rollout.controls - controls)
