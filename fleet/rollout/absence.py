"""Time in which the hub was away: it heard nothing, and that is nobody's fault.

Every deadline moves by that time, but none further than to where it would be if its time began now: whoever
began after the hub was back, or while its clock was wrong, gets nothing for what was before. An absence that
is told of again, since the hub was killed as it came back, is forgiven once; what it has grown by is added.
"""

from __future__ import annotations

from fleet.rollout.events import WasAway
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Absence


def forgive(draft: Draft, event: WasAway) -> None:
    """Move every deadline by the time that the hub was away."""
    rollout = draft.rollout
    if rollout.status.is_final:
        return
    duration_s = event.duration_s
    if event.since_s is not None:
        known = rollout.absence
        if known is not None and known.since_s == event.since_s:
            duration_s -= known.duration_s
        if duration_s <= 0.0:
            return
        draft.change(absence=Absence(event.since_s, event.duration_s))
    for number, stage in enumerate(rollout.stages):
        bake_s, since_start_s = stage.bake_started_s, draft.now_s - stage.started_s
        draft.change_stage(
            number,
            excused_s=_moved(stage.excused_s, duration_s, since_start_s),
            bake_started_s=None if bake_s is None else _moved(bake_s, duration_s, draft.now_s),
        )
    if rollout.next_due_s is not None:
        whole_s = draft.now_s + rollout.plan.deployment_timeout_s + rollout.plan.shadow_s
        draft.editing.delay("due_s", duration_s, whole_s)
        draft.change(next_due_s=_moved(rollout.next_due_s, duration_s, whole_s))


def _moved(value_s: float, by_s: float, most_s: float) -> float:
    """Return the value moved, but not beyond the most; one that is there already stays."""
    return min(value_s + by_s, max(value_s, most_s))
