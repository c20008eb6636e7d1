"""What operators say: each word is done or refused, as the table of `fleet.rollout.engine` has it.

The revocation of a version is said of no single rollout, but holds each as an operator would.
"""

from __future__ import annotations

import msgspec

from fleet.protocol.errors import Cause, Conflict, VersionRevoked
from fleet.rollout import approval, casting, endings, orders, rules, stages
from fleet.rollout.claims import named
from fleet.rollout.events import (
    Abort,
    Approve,
    Pause,
    Promote,
    Resume,
    Revoke,
    Start,
    Supersede,
)
from fleet.rollout.meanwhile import check_stage
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import PAUSED_BY, CauseCode, Happening, Kind, Status
from fleet.sentences import by_whom, devices, whole


def obey(draft: Draft, event: Start | Pause | Resume | Promote | Approve | Abort | Supersede) -> None:
    """Do what an operator says."""
    match event:
        case Start():
            _start(draft, event)
        case Pause():
            _pause(draft, event)
        case Resume():
            _resume(draft, event)
        case Promote():
            _promote(draft, event)
        case Approve():
            approval.approve(draft, event)
        case Abort():
            _abort(draft, event)
        case Supersede():
            _supersede(draft, event)


def _start(draft: Draft, event: Start) -> None:
    _require(draft, "started", Status.CREATED)
    if event.running is not None:
        casting.recast(draft, event.running, event.left)
    draft.change(status=Status.RUNNING)
    approval.note_mover(draft, event.by)
    others = ", ".join(str(number) for number in sorted(set(event.left.values())))
    without = f" Without {named(event.left)}: rollout {others} has them." if event.left else ""
    note = f" {event.note}" if event.note else ""
    draft.decide(Happening.STARTED, f"Started by {event.by}.{without}{note}")


def _pause(draft: Draft, event: Pause) -> None:
    _require(draft, "paused", Status.RUNNING)
    rules.pause(draft, f"{PAUSED_BY}{by_whom(event.by, event.reason)}")


def _resume(draft: Draft, event: Resume) -> None:
    _require(draft, "resumed", Status.PAUSED)
    _require_not_revoked(draft)
    if draft.rollout.stages and draft.stage.ended_s is None:
        evidence = draft.stage.evidence
        forgiven = msgspec.structs.replace(evidence.canary, unusable=0)  # or an ERROR would pause it again
        draft.change_stage(
            draft.rollout.stage_index,
            bake_started_s=None,
            evidence=msgspec.structs.replace(evidence, canary=forgiven),
        )
        draft.change(verdict=None)
    draft.change(status=Status.RUNNING, pause_reason="")
    draft.decide(Happening.RESUMED, f"Resumed by {event.by}.")


def _promote(draft: Draft, event: Promote) -> None:
    _require(draft, "promoted", Status.RUNNING, Status.PAUSED)
    _require_not_revoked(draft)
    rollout = draft.rollout
    if not rollout.stages:
        raise Conflict(f"{approval.waiting_sentence(rollout)} A promotion does not replace that.")
    check_stage(rollout, event.stage, rollout.stage_index + 1, [stage.ended_s for stage in rollout.stages])
    if draft.stage.ended_s is not None and not rules.waits_in_harm(draft):
        if rollout.awaits_since_s is not None:
            raise Conflict(f"{approval.waiting_sentence(rollout)} A promotion does not replace that.")
        raise Conflict(f"Rollout {rollout.number} has ended its last stage; there is none to promote.")
    said = rollout.verdict.sentence if rollout.verdict else "nothing yet"
    draft.change(status=Status.RUNNING, pause_reason="")
    approval.note_mover(draft, event.by)
    stage = f"Stage {rollout.stage_index + 1}"
    told = by_whom(event.by, event.reason)
    draft.decide(Happening.OVERRIDDEN, f"{stage} promoted by {told} The gate had said: {whole(said)}")
    stages.end_stage(draft, overridden=True)


def _abort(draft: Draft, event: Abort) -> None:
    _require(draft, "aborted", Status.CREATED, Status.RUNNING, Status.PAUSED)
    cause = Cause(CauseCode.ABORTED.value, f"Aborted by {by_whom(event.by, event.reason)}")
    ending = Status.ROLLED_BACK if event.roll_back and draft.rollout.stages else Status.ABORTED
    endings.begin_rollback(draft, ending, cause, keep=not event.roll_back)


def revoke(draft: Draft, event: Revoke) -> None:
    """Hold a rollout whose version was revoked, for good, and take back what was ordered and has not ended.

    The orders of an operator's rollback stand: in their place there is only the version that somebody
    wanted to leave. A device that has not prepared the revoked one refuses it.
    """
    rollout = draft.rollout
    if rollout.status not in {Status.RUNNING, Status.PAUSED}:
        return
    is_known, leads_back = bool(rollout.revoked), rollout.kind is Kind.ROLLBACK
    if is_known and (leads_back or orders.open_orders(draft.editing.tally) == 0):
        return
    draft.change(revoked=event.why, awaits_since_s=None)
    count = 0
    if not leads_back:
        count = orders.take_back(draft, Cause(CauseCode.CANCELED.value, event.why))
    taken_back = f" It is taken back from {devices(count)} on the way to it." if count else ""
    rules.pause(draft, f"{event.why}{taken_back}")


def _require_not_revoked(draft: Draft) -> None:
    if draft.rollout.revoked:
        raise VersionRevoked(
            draft.rollout.revoked,
            remedy=f"End it with `muster rollout abort {draft.rollout.number} --rollback`.",
        )


def _supersede(draft: Draft, event: Supersede) -> None:
    _require(draft, "superseded", *(status for status in Status if not status.is_final))
    endings.withdraw(
        draft, Cause(CauseCode.ABORTED.value, f"Superseded by {by_whom(event.by, event.reason)}")
    )


def _require(draft: Draft, what: str, *allowed: Status) -> None:
    if draft.rollout.status not in allowed:
        raise Conflict(
            f"Rollout {draft.rollout.number} is {draft.rollout.status.value} and cannot be {what}."
            f"{_said_last(draft)}"
        )


def _said_last(draft: Draft) -> str:
    """Return what was decided last and when: most often another operator came first."""
    last = draft.rollout.last_move
    if last is None:
        return ""
    ago_s = max(0.0, draft.now_s - last.at_s)
    return f" The last decision, {ago_s:,.0f} s ago: {last.text}"
