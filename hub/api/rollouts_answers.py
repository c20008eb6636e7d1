"""What routes answer about rollouts, from their stored state."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.state.columns import WAITING, Deployment
from fleet.rollout.state.rollout import Summary
from hub.api.preconditions import tell
from hub.api.rollout_schemas import (
    ApprovalOut,
    DeploymentOut,
    MetricVerdictOut,
    RolloutDetailOut,
    RolloutOut,
    StageOut,
)
from hub.api.schemas import CauseOut
from hub.store.rows import RolloutRow, SummaryRow


def short(row: SummaryRow) -> RolloutOut:
    """Return a rollout as a list has it."""
    return RolloutOut(**_fields(row))


def detail(row: RolloutRow | SummaryRow, response: Response) -> RolloutDetailOut:
    """Return a rollout with its plan, and put its entity tag into the answer."""
    state = row.state
    tell(response, state.decisions)
    return RolloutDetailOut(
        **_fields(row),
        plan=msgspec.to_builtins(state.plan),
        warnings=[warned.text for warned in state.warned],
        movers=list(state.movers),
        approvals=[
            ApprovalOut(stage=given.stage + 1, by=given.by, reason=given.reason, at_s=given.at_s)
            for given in state.approvals
        ],
        metrics=[
            MetricVerdictOut(
                metric=told.metric.value,
                outcome=told.outcome.value,
                sentence=told.sentence,
                harm=told.harm,
                safety=told.safety,
                needed=told.needed,
            )
            for told in (state.verdict.metrics if state.verdict else ())
        ],
    )


def deployment(part: Deployment) -> DeploymentOut:
    """Return a device's part."""
    attempt, restore = part.attempt, part.restore
    return DeploymentOut(
        device_id=part.device_id,
        stage=part.stage + 1,
        previous_version=part.previous_version,
        state=attempt.state.value,
        since_at_s=attempt.since_s,
        ordered_at_s=attempt.ordered_s,
        due_at_s=part.due_s,
        tries=part.tries,
        cause=CauseOut.of(attempt.cause),
        restore_state=restore.state.value if restore else None,
        restore_cause=CauseOut.of(restore.cause) if restore else None,
    )


def _fields(row: RolloutRow | SummaryRow) -> dict[str, Any]:
    state = row.state
    return {
        "number": state.number,
        "model": state.model,
        "version": state.version,
        "kind": state.kind.value,
        "status": state.status.value,
        "stage": state.stage_index + 1,
        "stages": [_stage(state, number) for number in range(len(state.tally))],
        "cause": CauseOut.of(state.cause),
        "verdict": state.verdict.sentence if state.verdict else None,
        "pause_reason": state.pause_reason,
        "revoked": bool(state.revoked),
        "awaits_approval_since_s": state.awaits_since_s,
        "revision": state.revision,
        "decisions": state.decisions,
        "devices": state.device_count,
        "created_at_s": row.created_at_s,
        "ended_at_s": state.ended_s,
        "counts": {name.value: number for name, number in sorted(state.counts.items())},
        "open_restores": state.open_restores,
        "restored": state.restored,
        "unrestored": state.unrestored,
    }


def _stage(state: Summary, number: int) -> StageOut:
    """Count a stage's outcomes; one that has not begun shows how many devices it would add."""
    asked = state.plan.stages[number]
    begun = state.stages[number] if number < len(state.stages) else None
    canceled = state.in_state(number, DeploymentState.CANCELED)
    return StageOut(
        name=asked.name,
        devices=begun.size if begun else sum(state.tally[number]) - canceled,
        canceled=canceled,
        waiting=state.tally[number][WAITING],
        succeeded=state.in_state(number, DeploymentState.SUCCEEDED),
        open=begun.open if begun else 0,
        failed=begun.failed if begun else 0,
        heard=begun.heard if begun else 0,
        verdict=_verdict(state, number),
        approval=asked.approval,
        approved_by=next((given.by for given in state.approvals if given.stage == number), None),
        started_at_s=begun.started_s if begun else None,
        bake_started_at_s=begun.bake_started_s if begun else None,
        ended_at_s=begun.ended_s if begun else None,
        minimum_bake_s=asked.minimum_bake_s,
        maximum_bake_s=asked.maximum_bake_s,
    )


def _verdict(state: Summary, number: int) -> str | None:
    if number > state.stage_index:
        return None
    progress = state.stages[number]
    if progress.ended_s is not None:
        return "overridden" if progress.overridden else "PASS"
    if state.verdict is not None and state.verdict.stage == number:
        return state.verdict.outcome.value
    return None
