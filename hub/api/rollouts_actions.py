"""Routes: what operators do to rollouts: draw them up, start, hold, approve, override, end, take back.

Every answer has the rollout's ``ETag``; a word that carries it as ``If-Match`` is refused with 412 if others
decided since (`hub.api.preconditions`). Without, a word is about the rollout as it is, and one that its state
does not allow is answered with 409 and what was decided last. A promotion or an approval that was said twice
would skip a stage: it names the stage, or has an ``If-Match``, or is refused with 428.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from fleet.rollout.events import Abort, Approve, Event, Pause, Promote, Resume, Start
from fleet.rollout.plans.plan import Plan
from fleet.rollout.plans.reading import plan_of
from hub.api.auth import Operator
from hub.api.paging import Number
from hub.api.preconditions import IfMatch, check_named
from hub.api.preview_schemas import DryRunIn, PreviewOut
from hub.api.rollout_schemas import (
    AbortIn,
    ApproveIn,
    PromoteIn,
    RetreatIn,
    RetreatOut,
    RollbackIn,
    RolloutDetailOut,
    RolloutIn,
)
from hub.api.rollouts_answers import detail
from hub.api.schemas import ActionIn
from hub.api.services import Hub
from hub.api.turns import IN_TURN
from hub.plan_file import Marks, placing, read_plan

router = APIRouter(tags=["rollouts"])


@router.post("/rollouts", status_code=201)
def create(body: RolloutIn, hub: Hub, caller: Operator, response: Response) -> RolloutDetailOut:
    """Create a rollout; it moves nothing until it is started."""
    plan, marks = _plan(body.plan)
    with placing(marks):
        row = hub.rollouts.create(
            body.model,
            body.version,
            plan=plan,
            devices=body.devices,
            seed=body.seed,
            variant_policy=body.variant_policy,
            by=caller.name,
        )
    return detail(row, response)


@router.post("/rollouts/dry-run", dependencies=[IN_TURN])
def dry_run(body: DryRunIn, hub: Hub, _: Operator) -> PreviewOut:
    """Say what a rollout would do: whom each stage reaches, bytes, times, obstacles. Nothing is stored."""
    plan, marks = _plan(body.plan)
    with placing(marks):
        told = hub.rollouts.preview(
            body.model,
            body.version,
            plan=plan,
            devices=body.devices,
            seed=body.seed,
            variant_policy=body.variant_policy,
            all_named=body.all_named,
        )
    return PreviewOut.of(told)


@router.post("/rollbacks", status_code=201)
def roll_back(body: RollbackIn, hub: Hub, caller: Operator, response: Response) -> RolloutDetailOut:
    """Bring devices that run a newer version back to an older one; what is under way is superseded."""
    row = hub.rollouts.roll_back(
        body.model,
        body.to,
        by=caller.name,
        reason=body.reason,
        target=body.target,
        devices_per_minute=body.devices_per_minute,
    )
    return detail(row, response)


@router.post("/rollbacks/dry-run", dependencies=[IN_TURN])
def dry_run_of_a_rollback(body: RetreatIn, hub: Hub, _: Operator) -> RetreatOut:
    """Say what a rollback would do: to which version, how many devices, what it puts aside."""
    told = hub.rollouts.retreat(body.model, body.to, target=body.target)
    return RetreatOut(
        model=told.model,
        to=told.to,
        devices=len(told.devices),
        leaves={str(version): count for version, count in sorted(told.leaves.items())},
        puts_aside=[row.state.number for row in told.in_the_way],
        sentence=told.sentence,
        warnings=[told.doubt] if told.doubt else [],
    )


class _Word:
    """What an operator says of a rollout.

    Attributes:
        by: Who says it.
    """

    def __init__(
        self, number: Number, hub: Hub, caller: Operator, expected: IfMatch, response: Response
    ) -> None:
        self.by = caller.name
        self._number, self._rollouts, self._expected = number, hub.rollouts, expected
        self._response = response

    def check_named(self, what: str, stage: int | None) -> None:
        """Refuse it if it says neither which stage nor after how many decisions it is meant."""
        check_named(self._number, what, stage, self._expected)

    def said(self, event: Event) -> RolloutDetailOut:
        """Have it carried out."""
        return detail(self._rollouts.act(self._number, event, decisions=self._expected), self._response)


Word = Annotated[_Word, Depends()]


@router.post("/rollouts/{number}/start")
def start(word: Word) -> RolloutDetailOut:
    """Start a rollout."""
    return word.said(Start(by=word.by))


@router.post("/rollouts/{number}/pause")
def pause(word: Word, body: ActionIn) -> RolloutDetailOut:
    """Hold a rollout where it is."""
    return word.said(Pause(by=word.by, reason=body.reason))


@router.post("/rollouts/{number}/resume")
def resume(word: Word) -> RolloutDetailOut:
    """Let a paused rollout go on."""
    return word.said(Resume(by=word.by))


@router.post("/rollouts/{number}/approve")
def approve(word: Word, body: ApproveIn) -> RolloutDetailOut:
    """Let a stage begin that waits; not for who created, started or promoted the rollout."""
    word.check_named("An approval", body.stage)
    return word.said(Approve(by=word.by, reason=body.reason, stage=body.stage))


@router.post("/rollouts/{number}/promote")
def promote(word: Word, body: PromoteIn) -> RolloutDetailOut:
    """Go on to the next stage without the gate's word; recorded as an override."""
    word.check_named("A promotion", body.stage)
    return word.said(Promote(by=word.by, reason=body.reason, stage=body.stage))


@router.post("/rollouts/{number}/abort")
def abort(word: Word, body: AbortIn) -> RolloutDetailOut:
    """End a rollout for good; keep what was installed, or bring it back."""
    return word.said(Abort(by=word.by, reason=body.reason, roll_back=body.roll_back))


def _plan(given: dict[str, Any] | str | None) -> tuple[Plan | None, Marks]:
    """Return a plan as it was given, checked, and where its fields stand if it came as text."""
    if given is None:
        return None, {}
    return read_plan(given) if isinstance(given, str) else (plan_of(given), {})
