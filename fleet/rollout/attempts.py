"""What becomes of orders: reports of devices, time running out, and another try.

An attempt is ordered once (`fleet.rollout.orders`), moves forward only, and ends once. A way forward that was
lost on its way, TIMED_OUT or FAILED because a peer did not answer, is tried again as often as the plan says,
each time after twice the time; a device that tried the version and did not keep it is never asked again. A
way forward that does not end in SUCCEEDED is followed by an order back at once, so that what the hub desires
is what the device runs. An operator's rollback is the exception: nobody is ordered back to the version that
it leaves, and a device that could not follow keeps its order and follows when it can.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from fleet.protocol.deployment import PROGRESS, DeploymentState
from fleet.protocol.errors import BrokerUnavailable, Cause, DeliveryTimedOut, HubUnavailable, Unavailable
from fleet.rollout import orders, progress
from fleet.rollout.events import DeploymentReported
from fleet.rollout.state.columns import Attempt, Deployment, forward_id
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import CauseCode, Happening, Kind

_TRANSPORT = frozenset(
    error.code for error in (Unavailable, HubUnavailable, BrokerUnavailable, DeliveryTimedOut)
)
"""A device that failed by one of these never had the version; trying again may help."""

_FEWEST_LOOKS = 64
"""What is due is looked for this many times at most while a deployment may last."""


def take_reports(draft: Draft, reports: Sequence[DeploymentReported]) -> None:
    """Take reports, those of each device in their order, each at the same cost however large the fleet is."""
    for report in progress.take_plain(draft, reports):
        take_report(draft, report)


def take_report(draft: Draft, report: DeploymentReported) -> None:
    """Move an attempt as its device reports; anything late, doubled, foreign or unknown changes nothing."""
    said = progress.read_id(report.deployment_id)
    if said is None:
        return
    number, index, is_forward, tries = said
    if number != draft.rollout.number:
        return
    if index >= len(draft.editing) or not draft.editing.members.is_at(index, report.device_id):
        return
    deployment = draft.deployment(index)
    if report.state is DeploymentState.REMOVED and _awaits_removal(deployment):
        is_forward = False
    attempt = deployment.attempt if is_forward else deployment.restore
    if attempt is None or not attempt.is_open:
        return
    if not is_forward:
        _advance_restore(draft, deployment, attempt, report)
    elif tries == deployment.tries:
        _advance_forward(draft, deployment, report)


def expire(draft: Draft) -> None:
    """Do what is due: end as TIMED_OUT what ran out of time, and let devices wait that may try again.

    One comparison tells whether anything can be due; only then are the devices looked at, all at once, and
    not sooner again than a small part of the time that a deployment has.
    """
    rollout, now_s = draft.rollout, draft.now_s
    if rollout.next_due_s is None or now_s < rollout.next_due_s:
        return
    for index in draft.editing.where(lambda rows: np.asarray(rows["due_s"] <= now_s)).tolist():
        _run_out(draft, draft.deployment(index))
    next_s = draft.editing.least("due_s")
    if next_s is not None:
        next_s = max(next_s, now_s + rollout.plan.deployment_timeout_s / _FEWEST_LOOKS)
    draft.change(next_due_s=next_s)


def _run_out(draft: Draft, deployment: Deployment) -> None:
    timeout_s = draft.rollout.plan.deployment_timeout_s
    restore = deployment.restore
    if restore is not None and restore.is_open:
        cause = _timeout_cause(timeout_s)
        _end_restore(draft, deployment, _moved(restore, DeploymentState.TIMED_OUT, draft.now_s, cause))
    elif deployment.attempt.is_open:
        cause = _timeout_cause(timeout_s + draft.rollout.plan.shadow_s)
        _end_forward(draft, deployment, DeploymentState.TIMED_OUT, cause)
    else:  # it failed before, and may try again
        draft.put(msgspec.structs.replace(deployment, due_s=None))
        draft.change(cursor=min(draft.rollout.cursor, deployment.index))


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
    if state is DeploymentState.SUCCEEDED:
        _put_end(draft, deployment, state, cause)
        return
    cause = cause or Cause(CauseCode.UNEXPLAINED.value, f"The device reported {state} without a cause.")
    draft.announce(Happening.DEPLOYMENT_FAILED, f"{deployment.device_id}: {state}, {cause.detail}")
    if _may_try_again(draft, deployment, state, cause):
        _put_retry(draft, deployment, cause)
        return
    _put_end(draft, deployment, state, cause)
    if draft.rollout.kind is not Kind.ROLLBACK:
        orders.order_one_back(draft, deployment)


def _put_end(draft: Draft, deployment: Deployment, state: DeploymentState, cause: Cause | None) -> None:
    attempt = _moved(deployment.attempt, state, draft.now_s, cause)
    draft.put(msgspec.structs.replace(deployment, attempt=attempt, due_s=None))
    stage, failed = draft.rollout.stages[deployment.stage], state is not DeploymentState.SUCCEEDED
    draft.change_stage(deployment.stage, open=stage.open - 1, failed=stage.failed + failed)
    draft.outdate_verdict()


def _may_try_again(draft: Draft, deployment: Deployment, state: DeploymentState, cause: Cause) -> bool:
    """Whether a deployment was lost on its way; a device that judged the version is not asked again."""
    lost = state is DeploymentState.TIMED_OUT or (
        state is DeploymentState.FAILED and cause.code in _TRANSPORT
    )
    return lost and deployment.tries < draft.rollout.plan.retries.attempts


def _put_retry(draft: Draft, deployment: Deployment, cause: Cause) -> None:
    tries = deployment.tries + 1
    due_s = draft.now_s + draft.rollout.plan.retries.backoff_s * 2 ** (tries - 1)
    waiting = Attempt(
        forward_id(draft.rollout.number, deployment.index, tries),
        DeploymentState.QUEUED,
        draft.now_s,
        cause=cause,
    )
    draft.put(msgspec.structs.replace(deployment, attempt=waiting, tries=tries, due_s=due_s))
    draft.due_by(due_s)


def _advance_restore(
    draft: Draft, deployment: Deployment, restore: Attempt, report: DeploymentReported
) -> None:
    if report.state.is_terminal:
        _end_restore(draft, deployment, _moved(restore, report.state, draft.now_s, report.cause))
    elif _is_ahead(report.state, restore.state):
        moved = _moved(restore, report.state, draft.now_s, report.cause)
        draft.put(msgspec.structs.replace(deployment, restore=moved))


def _end_restore(draft: Draft, deployment: Deployment, ended: Attempt) -> None:
    deployment = msgspec.structs.replace(deployment, restore=ended, due_s=None)
    draft.put(deployment)
    orders.count_back(draft, -1, removals=-(deployment.previous_version is None))
    if deployment.is_restored:
        draft.change(restored=draft.rollout.restored + 1)
    else:
        draft.change(unrestored=draft.rollout.unrestored + 1)
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
