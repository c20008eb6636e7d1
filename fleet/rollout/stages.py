"""Stages begin and end: who gets the version next, and who is left to be compared with."""

from __future__ import annotations

import msgspec
import numpy as np

from fleet.rollout import approval, joined, orders
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.state.columns import (
    CANCELED,
    NO_VERSION,
    QUEUED,
    Mask,
    Rows,
)
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Happening, StageProgress


def begin_stage(draft: Draft) -> None:
    """Send the version to the next stage's cohort, as fast as the plan allows."""
    joined.tell(draft)
    rollout = draft.rollout
    number = rollout.stage_index + 1
    size = size_of(draft, number)
    end = sum(size_of(draft, earlier) for earlier in range(number + 1))
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


def size_of(draft: Draft, stage: int) -> int:
    """Count a stage's devices, without those that another rollout took."""
    counts = draft.editing.tally[stage]
    return sum(counts) - counts[1 + CANCELED]


def _past(stage: StageProgress) -> StageProgress:
    """Return a stage that will not be judged any more: of its evidence the sums are kept, and no spans."""
    return msgspec.structs.replace(stage, evidence=stage.evidence.sums)


def _controls(draft: Draft, stage: int) -> int:
    """Count the devices that are reached after a stage and run another version."""

    def compared(rows: Rows) -> Mask:
        is_later = (rows["stage"] > stage) & (rows["state"] == QUEUED)
        return np.asarray(is_later & (rows["previous_version"] != NO_VERSION))

    return len(draft.editing.where(compared))
