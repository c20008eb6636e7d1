"""Routes: rollouts and rollbacks."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.latency import quantile_us
from fleet.rollout.events import Abort, Pause, Promote, Resume, Start
from fleet.rollout.plan import Plan
from fleet.rollout.plan_file import plan_of
from fleet.rollout.plan_schema import plan_schema
from fleet.rollout.state import Summary
from hub.api.auth import Operator, Viewer
from hub.api.paging import Limit, Number, number_in
from hub.api.preview_schemas import DryRunIn, PreviewOut
from hub.api.rollout_schemas import (
    AbortIn,
    DeploymentOut,
    HistoryOut,
    PromoteIn,
    RollbackIn,
    RolloutDetailOut,
    RolloutIn,
    RolloutOut,
    ShadowOut,
    ShadowPairOut,
    StageOut,
)
from hub.api.schemas import ActionIn, CauseOut, Page
from hub.api.services import Hub
from hub.plan_file import Marks, placing, read_plan
from hub.shadows import rollout_shadow
from hub.store.rows import RolloutRow, SummaryRow

router = APIRouter(tags=["rollouts"])


@router.post("/rollouts", status_code=201)
def create(body: RolloutIn, hub: Hub, _: Operator) -> RolloutDetailOut:
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
        )
    return _detail(row)


@router.post("/rollouts/dry-run")
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
    return PreviewOut.model_validate(msgspec.to_builtins(told))


@router.get("/schemas/plan")
def schema_of_plans(_: Viewer) -> dict[str, Any]:
    """Return the JSON Schema of plans."""
    return plan_schema()


@router.post("/rollbacks", status_code=201)
def roll_back(body: RollbackIn, hub: Hub, caller: Operator) -> RolloutDetailOut:
    """Bring every device that runs a newer version back to an older one; what is under way is superseded."""
    return _detail(hub.rollouts.roll_back(body.model, body.to, by=caller.name, reason=body.reason))


@router.get("/rollouts")
def list_rollouts(
    hub: Hub,
    _: Viewer,
    model: str | None = None,
    after: str | None = None,
    limit: Limit = 100,
) -> Page[RolloutOut]:
    """List rollouts, newest first."""
    rows = hub.store.rollouts(model=model, before=number_in(after), limit=limit)
    following = str(rows[-1].state.number) if len(rows) == limit else None
    return Page(items=[RolloutOut(**_fields(row)) for row in rows], next=following)


@router.get("/rollouts/{number}")
def show(number: Number, hub: Hub, _: Viewer) -> RolloutDetailOut:
    """Show a rollout with every device's part."""
    return _detail(hub.store.rollout(number))


@router.get("/rollouts/{number}/history")
def history(
    number: Number, hub: Hub, _: Viewer, after: str | None = None, limit: Limit = 100
) -> Page[HistoryOut]:
    """Return every decision about a rollout, oldest first."""
    known = number_in(after) or 0
    if known == 0:
        hub.store.rollout(number)  # or there is none
    entries = hub.store.decisions(number, after=known, limit=limit)
    following = str(known + len(entries)) if len(entries) == limit else None
    return Page(items=[HistoryOut(**msgspec.to_builtins(entry)) for entry in entries], next=following)


@router.get("/rollouts/{number}/shadow")
def shadow(number: Number, hub: Hub, _: Viewer) -> ShadowOut:
    """Return what the devices of a rollout reported of its version in the shadow of their active one."""
    sums = rollout_shadow(hub.store, hub.store.rollout(number).state)
    return ShadowOut(
        devices=sums.devices,
        compared=sums.compared,
        disagreed=sums.disagreed,
        disagreed_share=sums.disagreed / sums.compared if sums.compared else None,
        errors=sums.errors,
        not_finite=sums.not_finite,
        left_out=sums.left_out,
        active_latency_p50_us=quantile_us(sums.active_latency, 0.5),
        active_latency_p99_us=quantile_us(sums.active_latency, 0.99),
        candidate_latency_p50_us=quantile_us(sums.candidate_latency, 0.5),
        candidate_latency_p99_us=quantile_us(sums.candidate_latency, 0.99),
        pairs=[
            ShadowPairOut(active=active, candidate=candidate, samples=samples)
            for active, candidate, samples in sums.pairs
        ],
    )


@router.post("/rollouts/{number}/start")
def start(number: Number, hub: Hub, caller: Operator) -> RolloutDetailOut:
    """Start a rollout."""
    return _detail(hub.rollouts.act(number, Start(by=caller.name)))


@router.post("/rollouts/{number}/pause")
def pause(number: Number, body: ActionIn, hub: Hub, caller: Operator) -> RolloutDetailOut:
    """Hold a rollout where it is."""
    return _detail(hub.rollouts.act(number, Pause(by=caller.name, reason=body.reason)))


@router.post("/rollouts/{number}/resume")
def resume(number: Number, hub: Hub, caller: Operator) -> RolloutDetailOut:
    """Let a paused rollout go on."""
    return _detail(hub.rollouts.act(number, Resume(by=caller.name)))


@router.post("/rollouts/{number}/promote")
def promote(number: Number, body: PromoteIn, hub: Hub, caller: Operator) -> RolloutDetailOut:
    """Go on to the next stage without the gate's word; recorded as an override."""
    return _detail(hub.rollouts.act(number, Promote(by=caller.name, reason=body.reason)))


@router.post("/rollouts/{number}/abort")
def abort(number: Number, body: AbortIn, hub: Hub, caller: Operator) -> RolloutDetailOut:
    """End a rollout for good; keep what was installed, or bring it back."""
    event = Abort(by=caller.name, reason=body.reason, roll_back=body.roll_back)
    return _detail(hub.rollouts.act(number, event))


def _plan(given: dict[str, Any] | str | None) -> tuple[Plan | None, Marks]:
    """Return a plan as it was given, checked, and where its fields stand if it came as text."""
    if given is None:
        return None, {}
    return read_plan(given) if isinstance(given, str) else (plan_of(given), {})


def _detail(row: RolloutRow) -> RolloutDetailOut:
    deployments = [
        DeploymentOut(
            device_id=part.device_id,
            stage=part.stage + 1,
            previous_version=part.previous_version,
            state=part.attempt.state.value,
            cause=CauseOut.of(part.attempt.cause),
            restore_state=part.restore.state.value if part.restore else None,
            restore_cause=CauseOut.of(part.restore.cause) if part.restore else None,
        )
        for part in row.state.deployments
    ]
    plan = msgspec.to_builtins(row.state.plan)
    return RolloutDetailOut(**_fields(row), plan=plan, deployments=deployments)


def _fields(row: RolloutRow | SummaryRow) -> dict[str, Any]:
    state = row.state
    return {
        "number": state.number,
        "model": state.model,
        "version": state.version,
        "kind": state.kind.value,
        "status": state.status.value,
        "stage": state.stage_index + 1,
        "stages": _stages(state),
        "cause": CauseOut.of(state.cause),
        "verdict": state.verdict.sentence if state.verdict else None,
        "pause_reason": state.pause_reason,
        "revision": state.revision,
        "created_at_s": row.created_at_s,
        "counts": {name.value: number for name, number in sorted(state.counts.items())},
    }


def _stages(state: Summary) -> list[StageOut]:
    """Count each stage's outcomes; a stage that has not begun shows how many devices it will add."""
    return [
        StageOut(
            devices=sum(counts),
            succeeded=state.in_state(number, DeploymentState.SUCCEEDED),
            failed=state.stages[number].failed if number < len(state.stages) else 0,
            verdict=_stage_verdict(state, number),
        )
        for number, counts in enumerate(state.tally)
    ]


def _stage_verdict(state: Summary, number: int) -> str | None:
    if number > state.stage_index:
        return None
    progress = state.stages[number]
    if progress.ended_s is not None:
        return "overridden" if progress.overridden else "PASS"
    if state.verdict is not None and state.verdict.stage == number:
        return state.verdict.outcome.value
    return None
