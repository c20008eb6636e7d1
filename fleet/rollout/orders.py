"""Orders to devices: the way forward, the way back, and their end without a report.

What concerns many devices is done on columns; an order costs the same however large the fleet is. Devices
of a stage that has begun *wait* until their order is released, as fast as the plan allows; likewise the ways
back of a rollout that is rolling back. A cursor tells before which place nobody waits, so that what is
released is found without looking at the fleet.
"""

from __future__ import annotations

import numpy as np

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.rollout.state.columns import (
    CODES,
    IS_TERMINAL,
    KINDS,
    NO_VERSION,
    QUEUED,
    STATES,
    WAITING,
    Deployment,
    Mask,
    Places,
    Rows,
    back_id,
    forward_id,
)
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.masks import can_be_sent_back, goes_back, waits, waits_back, was_sent

_CANCELED = CODES[DeploymentState.CANCELED]
_OPEN_KINDS = [kind for kind in range(1, KINDS) if not STATES[kind - 1].is_terminal]


def open_orders(tally: tuple[tuple[int, ...], ...]) -> int:
    """Return how many devices of a rollout were sent the version and have not ended, by its tally."""
    return sum(counts[kind] for counts in tally for kind in _OPEN_KINDS)


def release_forward(draft: Draft) -> None:
    """Order the way forward of devices that wait in stages that have begun, as many as the plan allows."""
    rollout, plan = draft.rollout, draft.rollout.plan
    stage, count = rollout.stage_index, len(rollout.deployments)
    if rollout.cursor >= count or not any(t[WAITING] for t in draft.editing.tally[: stage + 1]):
        return
    rate, pace = plan.devices_per_minute, rollout.pace.since(draft.now_s)
    limit = pace.allows(count, rate, draft.now_s)
    if plan.concurrency is not None:
        limit = min(limit, plan.concurrency - open_orders(draft.editing.tally))
    if limit < 1:
        if pace is not rollout.pace:
            draft.change(pace=pace)
        return

    def is_next(rows: Rows) -> Mask:
        at_once = np.isnan(rows["due_s"])  # else it is another try, which has a time
        return np.asarray(waits(rows) & at_once & (rows["stage"] <= stage))

    places = draft.editing.where(is_next, start=rollout.cursor, limit=limit)
    cursor = int(places[-1]) + 1 if len(places) == limit else count
    draft.change(cursor=cursor, pace=pace.less(len(places), rate, draft.now_s))
    _order_forward(draft, places)


def _order_forward(draft: Draft, places: Places) -> None:
    rollout, now_s = draft.rollout, draft.now_s
    if len(places) == 0:
        return
    due_s = now_s + rollout.plan.deployment_timeout_s + rollout.plan.shadow_s  # nobody goes back in a shadow
    # Who was a control of this stage while it waited is new among the canaries.
    draft.editing.assign(places, since_s=now_s, ordered_s=now_s, due_s=due_s, counted_in=-1)
    draft.due_by(due_s)
    tries = draft.editing.column("tries", places).tolist()
    device_ids = draft.editing.members.device_ids(places)
    for place, device_id, tried in zip(places.tolist(), device_ids, tries, strict=True):
        deployment_id = forward_id(rollout.number, place, tried)
        draft.assign(device_id, deployment_id, rollout.version, shadow_s=rollout.plan.shadow_s)


def send_back(draft: Draft, places: Places) -> None:
    """Let devices go back to what they ran before; they wait for the order until it is released."""
    if len(places) == 0:
        return
    draft.editing.assign(places, back_state=QUEUED, back_since_s=draft.now_s, due_s=np.nan)
    versions = draft.editing.column("previous_version", places)
    count_back(draft, len(places), removals=int((versions == NO_VERSION).sum()))
    draft.change(back_cursor=min(draft.rollout.back_cursor, int(places[0])))


def release_back(draft: Draft) -> None:
    """Order the ways back that wait, as many as the plan allows."""
    rollout, count = draft.rollout, len(draft.rollout.deployments)
    if rollout.open_restores == 0 or rollout.back_cursor >= count:
        return
    rate, pace = rollout.plan.rollback_devices_per_minute, rollout.back_pace.since(draft.now_s)
    limit = pace.allows(count, rate, draft.now_s)
    if limit < 1:
        if pace is not rollout.back_pace:
            draft.change(back_pace=pace)
        return
    places = draft.editing.where(waits_back, start=rollout.back_cursor, limit=limit)
    cursor = int(places[-1]) + 1 if len(places) == limit else count
    draft.change(back_cursor=cursor, back_pace=pace.less(len(places), rate, draft.now_s))
    order_back(draft, places)


def order_back(draft: Draft, places: Places) -> None:
    """Order the way back of devices that are to go it."""
    if len(places) == 0:
        return
    number, now_s = draft.rollout.number, draft.now_s
    due_s = now_s + draft.rollout.plan.deployment_timeout_s
    draft.editing.assign(places, back_since_s=now_s, back_ordered_s=now_s, due_s=due_s)
    draft.due_by(due_s)
    versions = draft.editing.column("previous_version", places).tolist()
    device_ids = draft.editing.members.device_ids(places)
    for place, device_id, version in zip(places.tolist(), device_ids, versions, strict=True):
        draft.assign(device_id, back_id(number, place), None if version == NO_VERSION else version)


def order_one_back(draft: Draft, deployment: Deployment) -> None:
    """Send one device that failed back at once, whatever the pace."""
    places = np.array([deployment.index])
    cursor = draft.rollout.back_cursor
    send_back(draft, places)
    draft.change(back_cursor=cursor)
    order_back(draft, places)


def cancel_forward(draft: Draft, cause: Cause) -> None:
    """End every way forward that is open, or was never ordered."""
    places = draft.editing.where(_is_open_forward)
    draft.editing.assign(places, state=_CANCELED, since_s=draft.now_s, cause=cause, due_s=np.nan)
    for number in range(len(draft.rollout.stages)):
        draft.change_stage(number, open=0)


def take_back(draft: Draft, cause: Cause) -> int:
    """Take back every order forward that was given and has not ended; return how many.

    Who was not ordered waits on, and where the version has succeeded it stays.
    """
    places = to_go_back(draft, keep=True)
    stages = draft.editing.column("stage", places)
    draft.editing.assign(places, state=_CANCELED, since_s=draft.now_s, cause=cause, due_s=np.nan)
    for number in np.unique(stages).tolist():
        still_open = draft.rollout.stages[number].open - int((stages == number).sum())
        draft.change_stage(number, open=still_open)
    send_back(draft, places)
    return len(places)


def cancel_back(draft: Draft, cause: Cause) -> None:
    """End every way back that is open, or waits."""
    if draft.rollout.open_restores == 0:
        return
    places = draft.editing.where(goes_back)
    draft.editing.assign(
        places, back_state=_CANCELED, back_since_s=draft.now_s, back_cause=cause, due_s=np.nan
    )
    draft.change(open_restores=0, open_removals=0, unrestored=draft.rollout.unrestored + len(places))


def to_go_back(draft: Draft, *, keep: bool) -> Places:
    """Return the devices that a rollback concerns, before anything is canceled.

    Who failed is back or on the way already, but for an operator's rollback: there it has its order still.

    Args:
        draft: Of this step.
        keep: Leave the version where it has succeeded.
    """

    def concerned(rows: Rows) -> Mask:
        return was_sent(rows) & _is_open_forward(rows) if keep else can_be_sent_back(rows)

    return draft.editing.where(concerned)


def count_back(draft: Draft, change: int, *, removals: int) -> None:
    """Note that so many more ways back are open, and how many of them are removals."""
    rollout = draft.rollout
    draft.change(open_restores=rollout.open_restores + change, open_removals=rollout.open_removals + removals)


def _is_open_forward(rows: Rows) -> Mask:
    return np.asarray(~IS_TERMINAL[rows["state"]])
