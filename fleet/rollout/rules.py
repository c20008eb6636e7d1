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

Evidence is judged as often as `fleet.rollout.looks` says.

A stage whose plan asks for approval waits for it before it begins (`fleet.rollout.approval`); meanwhile the
rules 1 to 3 go on for the stages before it.

Once the version was revoked, the ways back of the orders that were taken back are released likewise, in any
status.

While ROLLING_BACK: ways back that wait are released as fast as the plan allows; when every way back has
ended, the rollout ends; FAILED if a device is not back.

An operator's rollback (`Kind.ROLLBACK`) is never itself rolled back by rule 2: the version that it leaves
is the one somebody wanted to leave. It goes to its end and is FAILED if too many devices did not follow.
"""

from __future__ import annotations

from fleet.protocol.errors import Cause
from fleet.rollout import approval, attempts, endings, orders, stages
from fleet.rollout.gates.gate import Outcome, Verdict
from fleet.rollout.installs import stage_fails
from fleet.rollout.looks import verdict_of
from fleet.rollout.plans.plan import OnFail, OnInconclusive
from fleet.rollout.state.columns import SUCCEEDED
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import CauseCode, Happening, Kind, Status


def settle(draft: Draft) -> None:
    """Apply the rules at the head of this file."""
    if draft.rollout.status in {Status.RUNNING, Status.PAUSED}:
        attempts.expire(draft)
        if draft.rollout.revoked:
            orders.release_back(draft)
        _protect(draft)
    if draft.rollout.status is Status.RUNNING:
        orders.release_forward(draft)
        _proceed(draft)
    if draft.rollout.status is Status.ROLLING_BACK:
        attempts.expire(draft)
        orders.release_back(draft)
        endings.end_rollback(draft)


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
        verdict = verdict_of(draft, fresh=begins_next)
        if verdict.outcome is Outcome.FAIL:
            _fail_by(draft, verdict)


def _fail_by(draft: Draft, verdict: Verdict) -> None:
    text = f"Stage {verdict.stage + 1}: {verdict.sentence}."
    _fail(draft, Cause(CauseCode.GATE_FAILED.value, text))


def waits_in_harm(draft: Draft) -> bool:
    """Whether harm was found while the next stage waits for approval, and paused the rollout."""
    if draft.rollout.status is not Status.PAUSED or not approval.is_judged_on(draft.rollout):
        return False
    return verdict_of(draft).outcome is Outcome.FAIL


def _fail(draft: Draft, cause: Cause) -> None:
    """Do as the plan says when there is harm."""
    if draft.rollout.plan.on_fail is OnFail.ROLL_BACK:
        endings.begin_rollback(draft, Status.ROLLED_BACK, cause)
    elif draft.rollout.status is Status.RUNNING:
        pause(draft, cause.detail)


def _proceed(draft: Draft) -> None:
    """Rules 4 to 7."""
    stages.go_on(draft)
    if not draft.rollout.stages:
        return
    while draft.rollout.status is Status.RUNNING and draft.stage.ended_s is None:
        number = draft.rollout.stage_index
        _try_to_end_stage(draft)
        if draft.rollout.stage_index == number or draft.stage.size > 0:
            break  # only what is empty needs no time: how often time is told changes nothing
    if draft.rollout.status is Status.RUNNING and draft.stage.ended_s is not None:
        endings.try_to_succeed(draft)


def _try_to_end_stage(draft: Draft) -> None:
    number, verdict = draft.rollout.stage_index, verdict_of(draft)
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
        verdict = verdict_of(draft, fresh=True)  # what decides is of now
    if verdict.outcome is Outcome.FAIL:
        _fail_by(draft, verdict)
    elif verdict.outcome is Outcome.PASS and can_pass:
        draft.decide(Happening.STAGE_PASSED, f"Stage {number + 1}: {verdict.sentence}.")
        stages.end_stage(draft, overridden=False)
    elif baked_s >= bounds.maximum_bake_s:
        said = f"Stage {number + 1}, after {bounds.maximum_bake_s:g} s: {verdict.sentence}.{missing}"
        _give_up_waiting(draft, said)


def _pass_over(draft: Draft, number: int) -> None:
    """Go on after a stage that lost all its devices, if that brings the version to nobody unproven."""
    text = f"Stage {number + 1}: rollouts of a higher priority took all its devices."
    if any(stages.size_of(draft, later) for later in range(number + 1, len(draft.rollout.plan.stages))):
        pause(draft, f"{text} It proves nothing to those that follow.")
    else:
        draft.decide(Happening.STAGE_PASSED, text)
        stages.end_stage(draft, overridden=False)


def _missing(draft: Draft, number: int) -> str:
    """Return what a stage lacks of its ``minimum_devices``, a sentence; empty if nothing."""
    if draft.rollout.kind is Kind.ROLLBACK:
        return ""
    running = draft.editing.tally[number][1 + SUCCEEDED]
    wanted = draft.rollout.plan.stages[number].minimum_devices
    return "" if running >= wanted else f" Only {running:,} of at least {wanted:,} devices run the version."


def _give_up_waiting(draft: Draft, text: str) -> None:
    if draft.rollout.plan.on_inconclusive is OnInconclusive.ROLL_BACK:
        endings.begin_rollback(draft, Status.ROLLED_BACK, Cause(CauseCode.INCONCLUSIVE.value, text))
    else:
        pause(draft, text)


def pause(draft: Draft, reason: str) -> None:
    """Hold the rollout."""
    draft.change(status=Status.PAUSED, pause_reason=reason)
    draft.decide(Happening.PAUSED, reason)
