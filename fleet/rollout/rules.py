"""The rules by which a rollout goes on without an operator, applied after every event.

While RUNNING or PAUSED, in this order:

1. Attempts whose time has run out end as TIMED_OUT.
2. More failed installs than the gate allows: roll back, at once.
3. The gate says FAIL: roll back, at once, also while paused. A pause holds progress, not protection.

If the plan says ``on_fail: pause``, rules 2 and 3 pause in place of rolling back; a stage that an operator
ended in place of the gate pauses no more.

While RUNNING only, orders that wait are released as fast as the plan allows, and:

4. The gate says ERROR: pause.
   A stage that lost all its devices to rollouts of a higher priority proves nothing: pause too, unless
   nobody is left after it either.
5. A stage bakes from the moment its last deployment has ended. It ends when the gate says PASS and it has
   baked for ``minimum_bake_s``, and ``minimum_devices`` of it run the version; then the next one begins.
6. After ``maximum_bake_s`` without PASS: pause, or roll back if the plan says so.
7. After the last stage, when every deployment has ended: SUCCEEDED.

Evidence is judged when a hundredth more of it came since the last look, ten seconds after that look, and
before a stage ends by it. Verdicts are valid at any look, so fewer of them cost no more than these seconds.

A stage whose plan asks for approval waits for it before it begins (`fleet.rollout.approval`); meanwhile the
rules 1 to 3 go on for the stages before it.

While ROLLING_BACK: ways back that wait are released as fast as the plan allows; when every way back has
ended, the rollout ends; FAILED if a device is not back.

An operator's rollback (`Kind.ROLLBACK`) is never itself rolled back by rule 2: the version that it leaves
is the one somebody wanted to leave. It goes to its end and is FAILED if too many devices did not follow.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from fleet.protocol.errors import Cause
from fleet.rollout import approval, attempts, orders
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.gates.gate import Outcome, Verdict, judge
from fleet.rollout.installs import stage_fails
from fleet.rollout.plans.plan import OnFail, OnInconclusive
from fleet.rollout.state.columns import (
    CANCELED,
    NO_VERSION,
    NOT_BACK,
    QUEUED,
    REMOVED,
    SUCCEEDED,
    Attempt,
    Deployment,
    Mask,
    Rows,
)
from fleet.rollout.state.deployments import Test, has_failed
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import CauseCode, Happening, Kind, Look, StageProgress, Status

_LOOK_S = 10.0
"""The verdict is at most so old when something came since, or"""
_LOOK_SHARE = 0.01
"""of so much less evidence: judging costs the same however little came."""
_NAMED_DEVICES = 5
"""Most devices that a sentence names one by one."""


def settle(draft: Draft) -> None:
    """Apply the rules at the head of this file."""
    if draft.rollout.status in {Status.RUNNING, Status.PAUSED}:
        attempts.expire(draft)
        _protect(draft)
    if draft.rollout.status is Status.RUNNING:
        orders.release_forward(draft)
        _proceed(draft)
    if draft.rollout.status is Status.ROLLING_BACK:
        attempts.expire(draft)
        orders.release_back(draft)
        _end_rollback(draft)


def begin_stage(draft: Draft) -> None:
    """Send the version to the next stage's cohort, as fast as the plan allows."""
    rollout = draft.rollout
    number = rollout.stage_index + 1
    size = _size(draft, number)
    end = sum(_size(draft, earlier) for earlier in range(number + 1))
    stage = StageProgress(
        size=size,
        started_s=draft.now_s,
        open=size,
        failed=0,
        evidence=Evidence.empty(len(rollout.plan.gate.metrics)),
    )
    start = rollout.cohort_ends[number - 1] if number else 0
    draft.change(
        stages=(*map(_past, rollout.stages), stage),
        controls=_controls(draft, number),
        cursor=min(rollout.cursor, start),
        verdict=None,
    )
    orders.release_forward(draft)
    draft.decide(
        Happening.STAGE_BEGAN,
        f"Stage {number + 1} of {len(rollout.plan.stages)} began: it brings the version to {stage.size:,} "
        f"more, to {end:,} of {len(rollout.deployments):,} devices in all.",
    )


def _past(stage: StageProgress) -> StageProgress:
    """Return a stage that will not be judged any more: of its evidence the sums are kept, and no spans."""
    return msgspec.structs.replace(stage, evidence=msgspec.structs.replace(stage.evidence, spans={}))


def _size(draft: Draft, stage: int) -> int:
    """Count a stage's devices, without those that another rollout took."""
    counts = draft.editing.tally[stage]
    return sum(counts) - counts[1 + CANCELED]


def _controls(draft: Draft, stage: int) -> int:
    """Count the devices that are reached after a stage and run another version."""

    def compared(rows: Rows) -> Mask:
        is_later = (rows["stage"] > stage) & (rows["state"] == QUEUED)
        return np.asarray(is_later & (rows["previous_version"] != NO_VERSION))

    return len(draft.editing.where(compared))


def end_stage(draft: Draft, *, overridden: bool) -> None:
    """End the current stage and begin the next, if there is one and it need not wait."""
    draft.change_stage(draft.rollout.stage_index, ended_s=draft.now_s, overridden=overridden)
    go_on(draft)


def go_on(draft: Draft) -> None:
    """Begin the next stage if the one before has ended, there is one, and it need not wait."""
    rollout = draft.rollout
    if len(rollout.stages) == len(rollout.plan.stages) or (rollout.stages and draft.stage.ended_s is None):
        return
    if approval.must_wait(rollout):
        approval.begin_waiting(draft)
    else:
        begin_stage(draft)


def begin_rollback(draft: Draft, ending: Status, cause: Cause, *, keep: bool = False) -> None:
    """Send every device that was sent the version back to what it ran before.

    Args:
        draft: Of this step.
        ending: What the rollout will be when all are back.
        cause: Why.
        keep: Leave the version where it has succeeded.
    """
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


def _protect(draft: Draft) -> None:
    """Rules 2 and 3."""
    rollout = draft.rollout
    if rollout.kind is Kind.ROLLBACK:
        return
    for number, stage in enumerate(rollout.stages):
        why = stage_fails(draft, number)
        if why is not None and not (stage.overridden and rollout.plan.on_fail is OnFail.PAUSE):
            _fail(draft, Cause(CauseCode.INSTALLS_FAILED.value, f"Stage {number + 1}: {why}."))
            return
    if rollout.stages and (draft.stage.ended_s is None or approval.is_judged_on(draft.rollout)):
        begins_next = draft.stage.ended_s is not None and draft.rollout.awaits_since_s is None
        verdict = _verdict(draft, fresh=begins_next)
        if verdict.outcome is Outcome.FAIL:
            _fail_by(draft, verdict)


def _fail_by(draft: Draft, verdict: Verdict) -> None:
    text = f"Stage {verdict.stage + 1}: {verdict.sentence}."
    _fail(draft, Cause(CauseCode.GATE_FAILED.value, text))


def waits_in_harm(draft: Draft) -> bool:
    """Whether harm was found while the next stage waits for approval, and paused the rollout."""
    if draft.rollout.status is not Status.PAUSED or not approval.is_judged_on(draft.rollout):
        return False
    return _verdict(draft).outcome is Outcome.FAIL


def _fail(draft: Draft, cause: Cause) -> None:
    """Do as the plan says when there is harm."""
    if draft.rollout.plan.on_fail is OnFail.ROLL_BACK:
        begin_rollback(draft, Status.ROLLED_BACK, cause)
    elif draft.rollout.status is Status.RUNNING:
        pause(draft, cause.detail)


def _proceed(draft: Draft) -> None:
    """Rules 4 to 7."""
    go_on(draft)
    if not draft.rollout.stages:
        return
    if draft.stage.ended_s is None:
        _try_to_end_stage(draft)
    if draft.rollout.status is Status.RUNNING and draft.stage.ended_s is not None:
        _try_to_succeed(draft)


def _try_to_end_stage(draft: Draft) -> None:
    number, verdict = draft.rollout.stage_index, _verdict(draft)
    bounds = draft.rollout.plan.stages[number]
    if verdict.outcome is Outcome.ERROR:
        pause(draft, f"Stage {number + 1}: {verdict.sentence}.")
        return
    if draft.stage.open > 0:
        return
    if draft.stage.size == 0:
        _pass_over(draft, number)
        return
    started_s = draft.stage.bake_started_s
    if started_s is None:
        started_s = draft.now_s
        draft.change_stage(number, bake_started_s=started_s)
    baked_s = draft.now_s - started_s
    missing = _missing(draft, number)
    can_pass = baked_s >= bounds.minimum_bake_s and not missing
    if baked_s >= bounds.maximum_bake_s or (can_pass and verdict.outcome is Outcome.PASS):
        verdict = _verdict(draft, fresh=True)  # what decides is of now
    if verdict.outcome is Outcome.FAIL:
        _fail_by(draft, verdict)
    elif verdict.outcome is Outcome.PASS and can_pass:
        draft.decide(Happening.STAGE_PASSED, f"Stage {number + 1}: {verdict.sentence}.")
        end_stage(draft, overridden=False)
    elif baked_s >= bounds.maximum_bake_s:
        said = f"Stage {number + 1}, after {bounds.maximum_bake_s:g} s: {verdict.sentence}.{missing}"
        _give_up_waiting(draft, said)


def _pass_over(draft: Draft, number: int) -> None:
    """Go on after a stage that lost all its devices, if that brings the version to nobody unproven."""
    text = f"Stage {number + 1}: rollouts of a higher priority took all its devices."
    if any(_size(draft, later) for later in range(number + 1, len(draft.rollout.plan.stages))):
        pause(draft, f"{text} It proves nothing to those that follow.")
    else:
        draft.decide(Happening.STAGE_PASSED, text)
        end_stage(draft, overridden=False)


def _missing(draft: Draft, number: int) -> str:
    """Return what a stage lacks of its ``minimum_devices``, a sentence; empty if nothing."""
    if draft.rollout.kind is Kind.ROLLBACK:
        return ""
    running = draft.editing.tally[number][1 + SUCCEEDED]
    wanted = draft.rollout.plan.stages[number].minimum_devices
    return "" if running >= wanted else f" Only {running:,} of at least {wanted:,} devices run the version."


def _give_up_waiting(draft: Draft, text: str) -> None:
    if draft.rollout.plan.on_inconclusive is OnInconclusive.ROLL_BACK:
        begin_rollback(draft, Status.ROLLED_BACK, Cause(CauseCode.INCONCLUSIVE.value, text))
    else:
        pause(draft, text)


def pause(draft: Draft, reason: str) -> None:
    """Hold the rollout."""
    draft.change(status=Status.PAUSED, pause_reason=reason)
    draft.decide(Happening.PAUSED, reason)


def _try_to_succeed(draft: Draft) -> None:
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
        if any(stage_fails(draft, number) for number in range(len(rollout.stages))):
            status, cause = Status.FAILED, Cause(CauseCode.INSTALLS_FAILED.value, text)
        else:
            cause = Cause(CauseCode.WITHIN_TOLERANCE.value, text)
    _end(draft, status, cause)


def _end_rollback(draft: Draft) -> None:
    rollout = draft.rollout
    if rollout.open_restores > 0:
        return
    assert rollout.ending is not None and rollout.cause is not None
    names = _named(draft, _is_not_back, lambda d: d.restore)
    if names:
        text = f"{rollout.cause.detail} Not back on what they ran before: {names}."
        _end(draft, Status.FAILED, Cause(CauseCode.RESTORE_FAILED.value, text))
    else:
        _end(draft, rollout.ending, rollout.cause)


def _end(draft: Draft, status: Status, cause: Cause | None) -> None:
    draft.change(status=status, cause=cause, ending=None, ended_s=draft.now_s)
    draft.decide(Happening.ENDED, f"{status.value}{': ' + cause.detail if cause else '.'}")


def _verdict(draft: Draft, *, fresh: bool = False) -> Verdict:
    """Return the verdict on the current stage; one of a moment ago will do unless it is to be fresh."""
    rollout, evidence = draft.rollout, draft.stage.evidence
    windows = sum(arm.windows + arm.unusable + arm.noised for arm in (evidence.canary, evidence.control))
    if rollout.verdict is None or (rollout.look.is_outdated and (fresh or _is_worth_a_look(draft, windows))):
        verdict = judge(
            rollout.plan,
            tuple(stage.evidence for stage in rollout.stages),
            has_control=rollout.controls > 0,
            heard=draft.stage.heard,
            expected=draft.stage.size - draft.stage.failed,
        )
        draft.change(verdict=verdict, look=Look(draft.now_s, windows))
    assert draft.rollout.verdict is not None
    return draft.rollout.verdict


def _is_worth_a_look(draft: Draft, windows: int) -> bool:
    """Whether so many windows, or the time since the last look, could have changed the verdict."""
    look = draft.rollout.look
    return windows >= look.windows * (1.0 + _LOOK_SHARE) or abs(draft.now_s - look.at_s) >= _LOOK_S


def _is_not_back(rows: Rows) -> Mask:
    """Tell which devices were to go back and did not."""
    arrived = np.where(rows["previous_version"] == NO_VERSION, REMOVED, SUCCEEDED)
    return np.asarray((rows["back_state"] != NOT_BACK) & (rows["back_state"] != arrived))


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
