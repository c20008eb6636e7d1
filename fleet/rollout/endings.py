"""How a rollout ends: by success, by a rollback of all that were sent the version, or put aside for another.

A rollout that goes back ends when every way back has; it is FAILED if a device is not back.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.protocol.errors import Cause
from fleet.rollout import joined, orders
from fleet.rollout.installs import stage_fails
from fleet.rollout.state.columns import Attempt, Deployment
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.masks import Test, has_failed, is_not_back
from fleet.rollout.state.rollout import CauseCode, Happening, Status
from fleet.sentences import whole

_NAMED_DEVICES = 5
"""Most devices that a sentence names one by one."""


def begin_rollback(draft: Draft, ending: Status, cause: Cause, *, keep: bool = False) -> None:
    """Send every device that was sent the version back to what it ran before.

    Args:
        draft: Of this step.
        ending: What the rollout will be when all are back.
        cause: Why.
        keep: Leave the version where it has succeeded.
    """
    joined.tell(draft)
    draft.change(status=Status.ROLLING_BACK, ending=ending, cause=cause, pause_reason="", awaits_since_s=None)
    draft.decide(Happening.ROLLING_BACK, cause.detail)
    concerned = orders.to_go_back(draft, keep=keep)
    orders.cancel_forward(draft, Cause(CauseCode.CANCELED.value, cause.detail))
    orders.send_back(draft, concerned)


def withdraw(draft: Draft, cause: Cause) -> None:
    """End the rollout as ABORTED with whatever is under way, in either direction; send nothing."""
    canceled = Cause(CauseCode.CANCELED.value, cause.detail)
    orders.cancel_forward(draft, canceled)
    orders.cancel_back(draft, canceled)
    draft.change(pause_reason="", awaits_since_s=None)
    _end(draft, Status.ABORTED, cause)


def try_to_succeed(draft: Draft) -> None:
    """End the rollout after its last stage, once every deployment has ended."""
    rollout = draft.rollout
    if len(rollout.stages) < len(rollout.plan.stages):
        return
    if rollout.open_restores > 0 or any(stage.open > 0 for stage in rollout.stages):
        return
    failed = sum(stage.failed for stage in rollout.stages)
    if not any(stage.size for stage in rollout.stages):
        taken = Cause(CauseCode.SUPERSEDED.value, "Rollouts of a higher priority took all its devices.")
        _end(draft, Status.ABORTED, taken)
        return
    cause: Cause | None = None
    status = Status.SUCCEEDED
    if failed:
        names = _named(draft, has_failed, lambda d: d.attempt)
        text = f"{failed:,} of {len(rollout.deployments):,} devices did not follow: {names}."
        text += _not_back(draft)
        if any(stage_fails(draft, number) for number in range(len(rollout.stages))):
            status, cause = Status.FAILED, Cause(CauseCode.INSTALLS_FAILED.value, text)
        else:
            cause = Cause(CauseCode.WITHIN_TOLERANCE.value, text)
    _end(draft, status, cause)


def end_rollback(draft: Draft) -> None:
    """End a rollout that goes back, once every way back has ended."""
    rollout = draft.rollout
    if rollout.open_restores > 0:
        return
    assert rollout.ending is not None and rollout.cause is not None
    left = _not_back(draft)
    if left:
        cause = Cause(CauseCode.RESTORE_FAILED.value, f"{rollout.cause.detail}{left}")
        _end(draft, Status.FAILED, cause)
    else:
        _end(draft, rollout.ending, rollout.cause)


def _end(draft: Draft, status: Status, cause: Cause | None) -> None:
    joined.tell(draft)
    draft.change(status=status, cause=cause, ending=None, ended_s=draft.now_s)
    draft.decide(Happening.ENDED, f"{status.value}{': ' + cause.detail if cause else '.'}")


def _not_back(draft: Draft) -> str:
    """Return who is not back, and why the first is not where that is known; empty if everybody is."""
    names = _named(draft, is_not_back, lambda d: d.restore)
    if not names:
        return ""
    (place,) = draft.editing.where(is_not_back, limit=1).tolist()
    restore = draft.deployment(place).restore
    why = f" {whole(restore.cause.detail)}" if restore is not None and restore.cause is not None else ""
    return f" Not back on what they ran before: {names}.{why}"


def _named(draft: Draft, unwell: Test, attempt_of: Callable[[Deployment], Attempt | None]) -> str:
    """Return the devices that pass a test, the first few by name; empty if there are none."""
    places = draft.editing.where(unwell)
    names = []
    for index in places[:_NAMED_DEVICES].tolist():
        deployment = draft.deployment(index)
        attempt = attempt_of(deployment)
        assert attempt is not None
        names.append(f"{deployment.device_id} ({attempt.state})")
    more = len(places) - _NAMED_DEVICES
    return ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
