"""Which telemetry counts for which side of the comparison.

=======  ===========================================================================================
arm      windows that count
=======  ===========================================================================================
canary   of the rollout's bundle, from a device that was sent it and is in TRIAL or SUCCEEDED; begun after
         the device reported so, by the device's own clock: what it did under an earlier rollout of the
         same bundle is not evidence of this one
control  of another bundle, from a device that ran a version before and was not sent the new one yet;
         ended after the stage began and not in the future, as far as clocks agree: an old spool is not a
         concurrent control, nor is one of a device whose clock is ahead
shadow   (reports, if disagreement is judged) of the rollout's bundle and of the order that the device has;
         they are the canaries', though the device is none yet
=======  ===========================================================================================

A batch of windows is added up by arm and by class of devices first, and then to the stage's evidence once:
what a window costs depends neither on the number of devices nor on that of classes.
"""

from __future__ import annotations

import math

import msgspec

from fleet.protocol.assignment import CLOCK_TOLERANCE_S
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import SealedWindow, opened
from fleet.protocol.shadow import contradiction
from fleet.rollout import approval
from fleet.rollout.events import EvidenceObserved
from fleet.rollout.gates.evidence import Arm, Evidence, gathered
from fleet.rollout.gates.spans import span_of
from fleet.rollout.gates.windows import observe, shadowed, unusable
from fleet.rollout.plans.plan import Metric
from fleet.rollout.state.columns import CODES, NO_VERSION, QUEUED, WAITING, Row
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Happening, Status

_ANSWERING = [CODES[state] for state in (DeploymentState.TRIAL, DeploymentState.SUCCEEDED)]
_RUNNING = [1 + code for code in _ANSWERING]


def take_windows(draft: Draft, event: EvidenceObserved) -> None:
    """Count windows for the current stage; one of no interest changes nothing."""
    rollout = draft.rollout
    if rollout.status not in {Status.RUNNING, Status.PAUSED} or not rollout.stages:
        return
    if draft.stage.ended_s is not None and not approval.is_between_stages(rollout):
        return
    ignored: dict[str, list[str]] = {}
    canaries: dict[str, Arm] = {}
    controls: dict[str, Arm] = {}
    places = draft.editing.members.places([device_id for device_id, _ in event.windows])
    for (device_id, window), index in zip(event.windows, places, strict=True):
        # sealed: what is of no interest is not looked into
        if index is None or window.model != draft.rollout.model:
            continue
        row = draft.editing.row(index)
        if _is_canary(draft, row, window):
            why = _count(draft, index, row, window, canaries)
        elif _is_control(draft, row, window):
            why = _count(draft, index, row, window, controls)
        else:
            continue
        if why is not None:
            ignored.setdefault(device_id, []).append(why)
    _add_shadows(draft, event, canaries)
    _add_noised(draft, event, canaries, controls)
    if canaries or controls:
        metrics = len(draft.rollout.plan.gate.metrics)
        new = Evidence(gathered(canaries, metrics), gathered(controls, metrics)).during(_span(draft))
        draft.change_stage(draft.rollout.stage_index, evidence=draft.stage.evidence.plus(new))
        draft.outdate_verdict()
    for device_id, reasons in ignored.items():
        draft.announce(
            Happening.TELEMETRY_IGNORED,
            f"{device_id}: {len(reasons):,} telemetry windows contradict themselves and were not counted; "
            f"the last one: {reasons[-1]}.",
        )


def _span(draft: Draft) -> int:
    """Return the span of the stage that it is now."""
    tally, begun = draft.editing.tally, draft.rollout.stage_index + 1
    total, reached = sum(map(sum, tally)), sum(map(sum, tally[:begun]))
    running = sum(counts[kind] for counts in tally[:begun] for kind in _RUNNING)
    waiting = sum(counts[WAITING] for counts in tally)
    return span_of(running, waiting, canaries_at_end=reached, controls_at_end=total - reached)


def _add_shadows(draft: Draft, event: EvidenceObserved, arms: dict[str, Arm]) -> None:
    """Count reports of shadows for the classes of their devices."""
    metrics = draft.rollout.plan.gate.metrics
    if not any(gate.metric is Metric.SHADOW_DISAGREEMENT for gate in metrics):
        return
    for device_id, report in event.shadows:
        index = draft.editing.members.place(device_id)
        if index is None or report.manifest_sha256 != draft.rollout.manifest_sha256:
            continue
        deployment = draft.deployment(index)
        if report.deployment_id == deployment.attempt.deployment_id and contradiction(report) is None:
            name = draft.rollout.strata[deployment.stratum]
            arms[name] = (arms.get(name) or Arm.empty(len(metrics))).plus(shadowed(report, metrics))


def _add_noised(
    draft: Draft, event: EvidenceObserved, canaries: dict[str, Arm], controls: dict[str, Arm]
) -> None:
    """Count windows with noise on their counts, which are no evidence, so that a verdict can say so."""
    for device_id, window in event.noised:
        index = draft.editing.members.place(device_id)
        if index is None or window.model != draft.rollout.model:
            continue
        row = draft.editing.row(index)
        is_canary = _is_canary(draft, row, window)
        if is_canary or _is_control(draft, row, window):
            arms, name = canaries if is_canary else controls, draft.rollout.strata[row.stratum]
            arm = arms.get(name) or Arm.empty(len(draft.rollout.plan.gate.metrics))
            arms[name] = msgspec.structs.replace(arm, noised=arm.noised + 1)


def _is_canary(draft: Draft, row: Row, window: SealedWindow | NoisedWindow) -> bool:
    return (
        window.manifest_sha256 == draft.rollout.manifest_sha256
        and not math.isnan(row.ordered_s)
        and row.state in _ANSWERING
        and window.started_at_s >= row.answers_since_s  # never, if that is not known
    )


def _is_control(draft: Draft, row: Row, window: SealedWindow | NoisedWindow) -> bool:
    return (
        window.manifest_sha256 != draft.rollout.manifest_sha256
        and math.isnan(row.ordered_s)
        and row.state == QUEUED  # or another rollout took it
        and row.previous_version != NO_VERSION
        and draft.stage.started_s - CLOCK_TOLERANCE_S <= window.ended_at_s <= draft.now_s + CLOCK_TOLERANCE_S
    )


def _count(draft: Draft, index: int, row: Row, window: SealedWindow, arms: dict[str, Arm]) -> str | None:
    """Count a window for its class of devices; return why it counts for nothing, or None."""
    number, name = draft.rollout.stage_index, draft.rollout.strata[row.stratum]
    metrics = draft.rollout.plan.gate.metrics
    is_new = row.counted_in < number
    arm = arms.get(name) or Arm.empty(len(metrics))
    try:
        read = opened(window)
    except InvalidMessage:
        arms[name] = msgspec.structs.replace(arm, unusable=arm.unusable + 1)
        return "its counts cannot be read"
    arms[name] = observe(arm, read, metrics, is_new=is_new)
    if arms[name].unusable > arm.unusable:
        return unusable(read)
    if is_new:
        draft.editing.put_row(index, row, row._replace(counted_in=number))
        if row.stage == number:
            draft.change_stage(number, heard=draft.stage.heard + 1)
    return None
