"""When the current stage is judged: a verdict of a moment ago will do for most that happens.

Evidence is judged when a fiftieth more of it came since the last look, half a minute after that look, and
before a stage ends by it. Verdicts are valid at any look, so fewer of them cost no more than this time.
"""

from __future__ import annotations

from fleet.rollout.gates.gate import Verdict, judge
from fleet.rollout.gates.groups import LEAST_DEVICES
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Look

_LOOK_S = 30.0
"""The verdict is at most so old when something came since, or"""
_LOOK_SHARE = 0.02
"""of so much less evidence: judging costs the same however little came."""


def verdict_of(draft: Draft, *, fresh: bool = False) -> Verdict:
    """Return the verdict on the current stage; one of a moment ago will do unless it is to be fresh."""
    rollout, evidence = draft.rollout, draft.stage.evidence
    windows = sum(arm.windows + arm.unusable + arm.noised for arm in (evidence.canary, evidence.control))
    if rollout.verdict is None or (rollout.look.is_outdated and (fresh or _is_worth_a_look(draft, windows))):
        verdict = judge(
            rollout.plan,
            tuple(stage.evidence for stage in rollout.stages),
            has_control=rollout.controls > 0,
            grouped=_grouped(draft),
            heard=draft.stage.heard,
            expected=draft.stage.size - draft.stage.failed,
            classes=len(rollout.strata) - 1,  # the first is of devices of no class
        )
        draft.change(verdict=verdict, look=Look(draft.now_s, windows))
    assert draft.rollout.verdict is not None
    return draft.rollout.verdict


def _grouped(draft: Draft) -> tuple[bool, bool]:
    """Whether there are, or were heard, enough canaries and controls to leave any group of them out."""
    rollout, evidence = draft.rollout, draft.stage.evidence
    controls = max(rollout.controls, evidence.control.devices)
    if rollout.controls == 0:  # those of earlier stages are compared with
        controls = max(stage.evidence.control.devices for stage in rollout.stages)
    canaries = max(draft.reached, evidence.canary.devices)
    return canaries >= LEAST_DEVICES, controls >= LEAST_DEVICES


def _is_worth_a_look(draft: Draft, windows: int) -> bool:
    """Whether so many windows, or the time since the last look, could have changed the verdict."""
    look = draft.rollout.look
    return windows >= look.windows * (1.0 + _LOOK_SHARE) or abs(draft.now_s - look.at_s) >= _LOOK_S
