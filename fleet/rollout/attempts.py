"""Orders to devices and what becomes of them: the way forward, the way back, and time running out.

An attempt is ordered once, moves forward only, and ends once. A way forward that does not end in SUCCEEDED
is followed by an order back at once, so that what the hub desires is what the device runs. An operator's
rollback is the exception: nobody is ordered back to the version that it leaves, and a device that could not
follow keeps its order and follows when it can.
"""

from __future__ import annotations

import re

import msgspec

from fleet.protocol.deployment import PROGRESS, DeploymentState
from fleet.protocol.errors import Cause
from fleet.rollout.deployments import Attempt, Deployment
from fleet.rollout.draft import Draft
from fleet.rollout.events import DeploymentReported
from fleet.rollout.state import CauseCode, Happening, Kind

_DEPLOYMENT_ID = re.compile(r"r([0-9]{1,15})-([0-9]{1,9})([fb])\Z", re.ASCII)


def forward_id(number: int, index: int) -> str:
    """Return the deployment id of the way forward of a rollout's device."""
    return f"r{number}-{index}f"


def back_id(number: int, index: int) -> str:
    """Return the deployment id of the way back."""
    return f"r{number}-{index}b"


def order_forward(draft: Draft, deployment: Deployment) -> None:
    """Send the rollout's version to a device; its stage counts it as open already."""
    attempt = msgspec.structs.replace(deployment.attempt, ordered_s=draft.now_s, since_s=draft.now_s)
    draft.put(msgspec.structs.replace(deployment, attempt=attempt))
    draft.assign(
        deployment.device_id,
        attempt.deployment_id,
        draft.rollout.version,
        shadow_s=draft.rollout.plan.shadow_s,
    )


def order_back(draft: Draft, deployment: Deployment) -> None:
    """Send a device what it ran before; it was not sent back yet."""
    rollout = draft.rollout
    restore = Attempt(
        back_id(rollout.number, deployment.index), DeploymentState.QUEUED, draft.now_s, ordered_s=draft.now_s
    )
    draft.put(msgspec.structs.replace(deployment, restore=restore))
    deadline_s = draft.now_s + rollout.plan.deployment_timeout_s
    known_s = rollout.restore_deadline_s
    draft.change(
        open_restores=rollout.open_restores + 1,
        restore_deadline_s=deadline_s if known_s is None else min(known_s, deadline_s),
    )
    draft.assign(deployment.device_id, restore.deployment_id, deployment.previous_version)


def cancel(draft: Draft, deployment: Deployment, cause: Cause) -> None:
    """End a way forward that is open, or was never ordered."""
    if deployment.attempt.is_open:
        draft.change_stage(deployment.stage, open=draft.rollout.stages[deployment.stage].open - 1)
    attempt = _moved(deployment.attempt, DeploymentState.CANCELED, draft.now_s, cause)
    draft.put(msgspec.structs.replace(deployment, attempt=attempt))


def cancel_restore(draft: Draft, deployment: Deployment, cause: Cause) -> None:
    """End a way back that is open, if there is one."""
    if deployment.restore is not None and deployment.restore.is_open:
        restore = _moved(deployment.restore, DeploymentState.CANCELED, draft.now_s, cause)
        draft.put(msgspec.structs.replace(deployment, restore=restore))
        draft.change(open_restores=draft.rollout.open_restores - 1)


def take_report(draft: Draft, report: DeploymentReported) -> None:
    """Move an attempt as its device reports; anything late, doubled, foreign or unknown changes nothing."""
    match = _DEPLOYMENT_ID.match(report.deployment_id)
    if match is None or int(match[1]) != draft.rollout.number:
        return
    index, is_forward = int(match[2]), match[3] == "f"
    if index >= len(draft.rollout.deployments):
        return
    deployment = draft.deployment(index)
    if report.state is DeploymentState.REMOVED and _awaits_removal(deployment):
        is_forward = False
    attempt = deployment.attempt if is_forward else deployment.restore
    if deployment.device_id != report.device_id or attempt is None or not attempt.is_open:
        return
    if is_forward:
        _advance_forward(draft, deployment, report)
    else:
        _advance_restore(draft, deployment, attempt, report)


def expire(draft: Draft) -> None:
    """End as TIMED_OUT every attempt whose time has run out.

    A stage's orders are given together, so one comparison tells whether any of them can be due; devices
    are looked at only then.
    """
    restore_s = draft.rollout.plan.deployment_timeout_s
    timeout_s = restore_s + draft.rollout.plan.shadow_s  # nobody goes back through a shadow
    for number, stage in enumerate(draft.rollout.stages):
        if stage.open > 0 and draft.now_s >= stage.started_s + stage.excused_s + timeout_s:
            end = draft.rollout.cohort_ends[number]
            for index in range(end - stage.size, end):
                deployment = draft.deployment(index)
                if deployment.attempt.is_open:
                    _end_forward(draft, deployment, DeploymentState.TIMED_OUT, _timeout_cause(timeout_s))
    deadline_s = draft.rollout.restore_deadline_s
    if draft.rollout.open_restores > 0 and deadline_s is not None and draft.now_s >= deadline_s:
        _expire_restores(draft, restore_s)


def forgive_restores(draft: Draft, duration_s: float) -> None:
    """Move the deadlines of the ways back."""
    deadline_s = draft.rollout.restore_deadline_s
    if draft.rollout.open_restores == 0 or deadline_s is None:
        return
    for index in range(len(draft.rollout.deployments)):
        deployment = draft.deployment(index)
        restore = deployment.restore
        if restore is not None and restore.is_open and restore.ordered_s is not None:
            restore = msgspec.structs.replace(restore, ordered_s=restore.ordered_s + duration_s)
            draft.put(msgspec.structs.replace(deployment, restore=restore))
    draft.change(restore_deadline_s=deadline_s + duration_s)


def _expire_restores(draft: Draft, timeout_s: float) -> None:
    next_s: float | None = None
    for index in range(draft.rollout.cohort_ends[draft.rollout.stage_index]):
        deployment = draft.deployment(index)
        restore = deployment.restore
        if restore is None or not restore.is_open or restore.ordered_s is None:
            continue
        deadline_s = restore.ordered_s + timeout_s
        if draft.now_s >= deadline_s:
            cause = _timeout_cause(timeout_s)
            _end_restore(draft, deployment, _moved(restore, DeploymentState.TIMED_OUT, draft.now_s, cause))
        else:
            next_s = deadline_s if next_s is None else min(next_s, deadline_s)
    draft.change(restore_deadline_s=next_s)


def _awaits_removal(deployment: Deployment) -> bool:
    """Whether a removal is under way: an assignment without the model carries no id of its own.

    The device then reports under the id it was given last, that of the way forward.
    """
    return deployment.previous_version is None and (
        deployment.restore is not None and deployment.restore.is_open
    )


def _advance_forward(draft: Draft, deployment: Deployment, report: DeploymentReported) -> None:
    if report.state in {DeploymentState.TRIAL, DeploymentState.SUCCEEDED}:
        since_s = deployment.answers_since_s
        since_s = report.at_s if since_s is None else since_s
        deployment = msgspec.structs.replace(deployment, answers_since_s=since_s)
    if report.state.is_terminal:
        _end_forward(draft, deployment, report.state, report.cause)
    elif _is_ahead(report.state, deployment.attempt.state):
        attempt = _moved(deployment.attempt, report.state, draft.now_s, report.cause)
        draft.put(msgspec.structs.replace(deployment, attempt=attempt))


def _end_forward(draft: Draft, deployment: Deployment, state: DeploymentState, cause: Cause | None) -> None:
    stage = draft.rollout.stages[deployment.stage]
    succeeded = state is DeploymentState.SUCCEEDED
    if not succeeded:
        cause = cause or Cause(CauseCode.UNEXPLAINED.value, f"The device reported {state} without a cause.")
    deployment = msgspec.structs.replace(
        deployment, attempt=_moved(deployment.attempt, state, draft.now_s, cause)
    )
    draft.put(deployment)
    draft.change_stage(deployment.stage, open=stage.open - 1, failed=stage.failed + (not succeeded))
    draft.change(verdict=None)
    if not succeeded:
        assert cause is not None
        draft.announce(Happening.DEPLOYMENT_FAILED, f"{deployment.device_id}: {state}, {cause.detail}")
        if draft.rollout.kind is not Kind.ROLLBACK:
            order_back(draft, deployment)


def _advance_restore(
    draft: Draft, deployment: Deployment, restore: Attempt, report: DeploymentReported
) -> None:
    if report.state.is_terminal:
        _end_restore(draft, deployment, _moved(restore, report.state, draft.now_s, report.cause))
    elif _is_ahead(report.state, restore.state):
        moved = _moved(restore, report.state, draft.now_s, report.cause)
        draft.put(msgspec.structs.replace(deployment, restore=moved))


def _end_restore(draft: Draft, deployment: Deployment, ended: Attempt) -> None:
    deployment = msgspec.structs.replace(deployment, restore=ended)
    draft.put(deployment)
    draft.change(open_restores=draft.rollout.open_restores - 1)
    if not deployment.is_restored:
        why = f", {ended.cause.detail}" if ended.cause else ""
        draft.announce(
            Happening.DEPLOYMENT_FAILED, f"{deployment.device_id}: on the way back {ended.state}{why}"
        )


def _moved(attempt: Attempt, state: DeploymentState, now_s: float, cause: Cause | None) -> Attempt:
    return msgspec.structs.replace(attempt, state=state, since_s=now_s, cause=cause)


def _is_ahead(state: DeploymentState, of: DeploymentState) -> bool:
    return PROGRESS.index(state) > PROGRESS.index(of)


def _timeout_cause(timeout_s: float) -> Cause:
    return Cause(CauseCode.TIMED_OUT.value, f"The device did not finish within {timeout_s:g} s.")
