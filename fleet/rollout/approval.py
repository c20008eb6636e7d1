"""Approval by a second person: a stage whose plan says ``approval`` begins only when somebody else approves.

::

    the stage before ended ──→ waits ──── Approve, by a second person ──→ begins
                                 │ harm, Abort, Supersede
                                 └──────────────────────────────────────→ as ever

Somebody else is who did not move the rollout so far: who created it, started it, or promoted one of its
stages cannot approve of any; who approved of one stage can approve of the next. People are told apart by the
names of their API tokens.

Nothing of the stage is ordered while it waits, so no deadline runs. What earlier stages brought is judged all
the while: waiting holds progress, not protection. A promotion ends the stage before, never the waiting.
"""

from __future__ import annotations

from fleet.protocol.errors import Conflict, NotPermitted
from fleet.rollout.events import Approve
from fleet.rollout.meanwhile import check_stage
from fleet.rollout.plans.naming import stage_of_all
from fleet.rollout.plans.plan import OnFail
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Approval, Happening, Rollout, Status
from fleet.sentences import by_whom, one_line


def must_wait(rollout: Rollout) -> bool:
    """Whether the next stage needs an approval that it does not have; there is a next stage."""
    number = len(rollout.stages)
    asked = rollout.plan.stages[number].approval
    return asked and all(approval.stage != number for approval in rollout.approvals)


def begin_waiting(draft: Draft) -> None:
    """Let the next stage wait."""
    if draft.rollout.awaits_since_s is not None:
        return
    draft.change(awaits_since_s=draft.now_s)
    draft.decide(
        Happening.APPROVAL_AWAITED, f"{_stage(draft)} waits for approval by a second person{_who(draft)}."
    )


def approve(draft: Draft, event: Approve) -> None:
    """Note that a person approves of the stage that waits.

    Raises:
        Conflict: No stage waits, or another one than the person named.
        InvalidInput: There is no such stage.
        NotPermitted: The person moved the rollout so far.
    """
    rollout = draft.rollout
    if rollout.awaits_since_s is None or rollout.status not in {Status.RUNNING, Status.PAUSED}:
        number = event.stage or rollout.stage_index + 1
        given = [approval for approval in rollout.approvals if approval.stage == number - 1]
        before = f" {given[-1].by} approved of stage {number}." if given else ""
        raise Conflict(
            f"Rollout {rollout.number} is {rollout.status.value}, and no stage of it waits for approval."
            f"{before}"
        )
    number = len(rollout.stages)
    check_stage(rollout, event.stage, number + 1, [stage.started_s for stage in rollout.stages])
    if event.by in rollout.movers:
        raise NotPermitted(
            f"{event.by} moved rollout {rollout.number} this far and cannot be the second person.",
            remedy=f"Somebody with another API token approves{_who(draft)}.",
        )
    approval = Approval(stage=number, by=event.by, reason=one_line(event.reason), at_s=draft.now_s)
    said = f"{_stage(draft)} approved by {by_whom(event.by, event.reason)}"
    draft.change(awaits_since_s=None, approvals=(*rollout.approvals, approval))
    draft.decide(Happening.APPROVED, said)


def is_judged_on(rollout: Rollout) -> bool:
    """Whether a stage that has ended is judged on, because the next one waits, or is held by a pause."""
    if not is_between_stages(rollout):
        return False
    return not (rollout.stages[-1].overridden and rollout.plan.on_fail is OnFail.PAUSE)


def is_between_stages(rollout: Rollout) -> bool:
    """Whether a stage has ended and the next one has not begun: it waits, or was approved in a pause."""
    stages = rollout.stages
    return 0 < len(stages) < len(rollout.plan.stages) and stages[-1].ended_s is not None


def waiting_sentence(rollout: Rollout) -> str:
    """Return that the next stage waits."""
    number = len(rollout.stages) + 1
    return f"Stage {number} of rollout {rollout.number} waits for approval by a second person."


def note_mover(draft: Draft, by: str) -> None:
    """Remember that a person moved the rollout."""
    if by not in draft.rollout.movers:
        draft.change(movers=(*draft.rollout.movers, by))


def second_person(rollout: Rollout) -> str:
    """Return who may approve, to go on a sentence: `` who is not ada or bob``; empty if anybody may."""
    return f" who is not {' or '.join(rollout.movers)}" if rollout.movers else ""


def _stage(draft: Draft) -> str:
    return stage_of_all(draft.rollout.plan, len(draft.rollout.stages))


def _who(draft: Draft) -> str:
    """Return who may approve, as the end of a sentence."""
    who = second_person(draft.rollout)
    return f",{who}" if who else ""
