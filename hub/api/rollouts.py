"""Routes: rollouts as they are: lists, one, its devices, its history, why it is where it is."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Response

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import InvalidInput
from fleet.protocol.latency import quantile_us
from fleet.rollout.plans.schema import plan_schema
from fleet.rollout.state.columns import CODES, Mask, Rows
from fleet.rollout.state.deployments import scan
from hub.api.auth import Viewer
from hub.api.paging import Limit, Number, number_in
from hub.api.preconditions import tell
from hub.api.rollout_schemas import (
    DeploymentOut,
    ExplanationOut,
    HistoryOut,
    RolloutDetailOut,
    RolloutOut,
    ShadowOut,
    ShadowPairOut,
)
from hub.api.rollouts_answers import deployment, detail, short
from hub.api.schemas import Page
from hub.api.services import Hub
from hub.rollouts.explaining import explanation_of
from hub.shadows import rollout_shadow

router = APIRouter(tags=["rollouts"])

States = Annotated[
    list[DeploymentState] | None,
    Query(description="Only devices whose way forward is in one of these.", max_length=len(DeploymentState)),
]
RestoreStates = Annotated[
    list[DeploymentState] | None,
    Query(description="Only devices whose way back is in one of these.", max_length=len(DeploymentState)),
]
StageNumber = Annotated[int | None, Query(ge=1, le=255, description="Only devices of this stage, from 1.")]


@router.get("/schemas/plan")
def schema_of_plans(_: Viewer) -> dict[str, Any]:
    """Return the JSON Schema of plans."""
    return plan_schema()


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
    return Page(items=[short(row) for row in rows], next=following)


@router.get("/rollouts/{number}")
def show(number: Number, hub: Hub, _: Viewer, response: Response) -> RolloutDetailOut:
    """Show a rollout; its devices have a list of their own."""
    return detail(hub.store.rollout_summary(number), response)


@router.get("/rollouts/{number}/devices")
def devices(
    number: Number,
    hub: Hub,
    _: Viewer,
    *,
    state: States = None,
    restore_state: RestoreStates = None,
    stage: StageNumber = None,
    after: str | None = None,
    limit: Limit = 100,
) -> Page[DeploymentOut]:
    """List the devices of a rollout with their parts, in the order in which it reaches them."""
    rollout = hub.store.rollout(number).state
    if stage is not None and stage > len(rollout.plan.stages):
        raise InvalidInput(
            f"Rollout {number} has {len(rollout.plan.stages)} stages; there is no stage {stage}."
        )
    wanted = [CODES[one] for one in state] if state else None
    wanted_back = [CODES[one] for one in restore_state] if restore_state else None

    def meant(rows: Rows) -> Mask:
        found = np.ones(len(rows), dtype=bool)
        if wanted is not None:
            found &= np.isin(rows["state"], wanted)
        if wanted_back is not None:
            found &= np.isin(rows["back_state"], wanted_back)
        if stage is not None:
            found &= rows["stage"] == stage - 1
        return found

    start = number_in(after) or 0
    pages = rollout.deployments.pages
    places = scan(pages, meant, start=start, limit=limit)
    following = str(int(places[-1]) + 1) if len(places) == limit else None
    return Page(items=[deployment(part) for part in rollout.deployments.at(places)], next=following)


@router.get("/rollouts/{number}/explanation")
def explanation(number: Number, hub: Hub, _: Viewer, response: Response) -> ExplanationOut:
    """Say why a rollout is where it is, who holds it up, what makes it go on and what operators can do."""
    told = explanation_of(hub.store, hub.store.rollout(number).state, time.time())
    tell(response, told.decisions)
    return ExplanationOut.model_validate(msgspec.to_builtins(told))


@router.get("/rollouts/{number}/history")
def history(
    number: Number, hub: Hub, _: Viewer, after: str | None = None, limit: Limit = 100
) -> Page[HistoryOut]:
    """Return every decision about a rollout, oldest first."""
    known = number_in(after) or 0
    if known == 0:
        hub.store.rollout_summary(number)  # or there is none
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
