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

A batch of windows is added up by arm, class and group of devices first, and then to the stage's evidence
once: what a window costs depends neither on the number of devices nor on that of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
import numpy as np

from fleet.protocol.assignment import CLOCK_TOLERANCE_S
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import SealedWindow, TelemetryWindow, opened
from fleet.protocol.shadow import contradiction
from fleet.rollout import approval
from fleet.rollout.events import EvidenceObserved
from fleet.rollout.gates.evidence import Arm, Evidence, gathered
from fleet.rollout.gates.groups import group_of
from fleet.rollout.gates.spans import span_of
from fleet.rollout.gates.sums import ArmSum
from fleet.rollout.plans.plan import Metric
from fleet.rollout.state.columns import CODES, NO_VERSION, QUEUED, WAITING, Mask, Places, Rows
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.rollout import Happening, Status

_ANSWERING = [CODES[state] for state in (DeploymentState.TRIAL, DeploymentState.SUCCEEDED)]
_IS_ANSWERING = np.isin(np.arange(256), _ANSWERING)
_RUNNING = [1 + code for code in _ANSWERING]
_ASKED = ("stratum", "stage", "counted_in")
_Window = TypeVar("_Window", SealedWindow, NoisedWindow)


def take_windows(draft: Draft, event: EvidenceObserved) -> None:
    """Count windows for the current stage; one of no interest changes nothing."""
    rollout = draft.rollout
    if rollout.status not in {Status.RUNNING, Status.PAUSED} or not rollout.stages:
        return
    if draft.stage.ended_s is not None and not approval.is_between_stages(rollout):
        return
    sums = _Sums(draft)
    ignored = sums.add_windows(event)
    sums.add_shadows(event)
    sums.add_noised(event)
    sums.settle()
    for device_id, reasons in ignored.items():
        draft.announce(
            Happening.TELEMETRY_IGNORED,
            f"{device_id}: {len(reasons):,} telemetry windows contradict themselves and were not counted; "
            f"the last one: {reasons[-1]}.",
        )


def _span(draft: Draft) -> int:
    """Return the span of the stage that it is now."""
    tally, begun = draft.editing.tally, draft.rollout.stage_index + 1
    total, reached = sum(map(sum, tally)), draft.reached
    running = sum(counts[kind] for counts in tally[:begun] for kind in _RUNNING)
    waiting = sum(counts[WAITING] for counts in tally)
    return span_of(running, waiting, canaries_at_end=reached, controls_at_end=total - reached)


def _arms_of(draft: Draft, rows: Rows, windows: Sequence[SealedWindow | NoisedWindow]) -> tuple[Mask, Mask]:
    """Tell which windows count for the canaries, and which for the controls.

    Args:
        draft: Of this step.
        rows: Of the devices that the windows are from, as many.
        windows: Of the rollout's model.
    """
    digest = draft.rollout.manifest_sha256
    is_new = np.array([window.manifest_sha256 == digest for window in windows], dtype=bool)
    started_s = np.array([window.started_at_s for window in windows])
    ended_s = np.array([window.ended_at_s for window in windows])
    was_sent = ~np.isnan(rows["ordered_s"])
    canaries = is_new & was_sent & _IS_ANSWERING[rows["state"]]
    canaries &= started_s >= rows["answers_since_s"]  # never, if that is not known
    controls = ~is_new & ~was_sent & (rows["state"] == QUEUED)  # or another rollout took it
    controls &= rows["previous_version"] != NO_VERSION
    controls &= ended_s >= draft.stage.started_s - CLOCK_TOLERANCE_S
    controls &= ended_s <= draft.now_s + CLOCK_TOLERANCE_S
    return canaries, controls


_Arms = dict[tuple[int, int], ArmSum]
"""By group and class of devices."""


class _Sums:
    """What a batch adds to the evidence, by arm, and by class and group of devices.

    Args:
        draft: Of this step.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft, self._metrics = draft, draft.rollout.plan.gate.metrics
        self._canaries: _Arms = {}
        self._controls: _Arms = {}
        self._heard = 0

    def add_windows(self, event: EvidenceObserved) -> dict[str, list[str]]:
        """Count windows; return by device why some count for nothing."""
        if not event.windows:
            return {}
        draft, number = self._draft, self._draft.rollout.stage_index
        ignored: dict[str, list[str]] = {}
        counted: set[int] = set()  # devices that were not before
        windows, places, rows = self._known(event.windows)
        are_canaries, are_controls = _arms_of(draft, rows, [window for _, window in windows])
        some = np.flatnonzero(are_canaries | are_controls)
        columns = (are_canaries[some], places[some], *(rows[name][some] for name in _ASKED))
        for at, is_canary, place, stratum, stage, counted_in in zip(
            some.tolist(), *(column.tolist() for column in columns), strict=True
        ):
            device_id, window = windows[at]
            arm = self._arm(self._canaries if is_canary else self._controls, stratum, place)
            is_new = counted_in < number and place not in counted
            why = self._added(arm, window, event.incomparable, is_new=is_new)
            if why is not None:
                ignored.setdefault(device_id, []).append(why)
            elif is_new:
                counted.add(place)
                self._heard += is_canary and stage == number
        draft.editing.note_counted(np.array(sorted(counted), dtype=np.intp), number)
        return ignored

    def _added(
        self, arm: ArmSum, window: SealedWindow, incomparable: frozenset[str], *, is_new: bool
    ) -> str | None:
        """Add a window to an arm; return why it counts for nothing, None if it counts."""
        try:
            read = opened(window)  # sealed: what is of no interest is not looked into
        except InvalidMessage:
            arm.add_unreadable()
            return "its counts cannot be read"
        if window.manifest_sha256 in incomparable:
            read = self._without_inputs(read)
        return arm.add(read, is_new=is_new)

    def _known(
        self, windows: Sequence[tuple[str, _Window]]
    ) -> tuple[list[tuple[str, _Window]], Places, Rows]:
        """Return the windows of the model from devices that are known, and the places and rows of these."""
        editing, model = self._draft.editing, self._draft.rollout.model
        places = editing.members.places([device_id for device_id, _ in windows])
        pairs = zip(windows, places, strict=True)
        known = [(one, place) for one, place in pairs if place is not None and one[1].model == model]
        found = np.array([place for _, place in known], dtype=np.intp)
        return [one for one, _ in known], found, editing.rows(found)

    def _without_inputs(self, window: TelemetryWindow) -> TelemetryWindow:
        compared = {gate.feature for gate in self._metrics if gate.metric is Metric.INPUT_DRIFT}
        rest = {name: counts for name, counts in window.profile.items() if name not in compared}
        return msgspec.structs.replace(window, profile=rest)

    def add_shadows(self, event: EvidenceObserved) -> None:
        """Count reports of shadows for the classes of their devices."""
        draft = self._draft
        if not any(gate.metric is Metric.SHADOW_DISAGREEMENT for gate in self._metrics):
            return
        for device_id, report in event.shadows:
            index = draft.editing.members.place(device_id)
            if index is None or report.manifest_sha256 != draft.rollout.manifest_sha256:
                continue
            deployment = draft.deployment(index)
            if report.deployment_id == deployment.attempt.deployment_id and contradiction(report) is None:
                self._arm(self._canaries, deployment.stratum, index).add_shadow(report)

    def add_noised(self, event: EvidenceObserved) -> None:
        """Count windows with noise on their counts, which are no evidence, so that a verdict can say so."""
        if not event.noised:
            return
        windows, places, rows = self._known(event.noised)
        sides = _arms_of(self._draft, rows, [window for _, window in windows])
        for arms, are_of_it in zip((self._canaries, self._controls), sides, strict=True):
            for stratum, place in zip(
                rows["stratum"][are_of_it].tolist(), places[are_of_it].tolist(), strict=True
            ):
                self._arm(arms, stratum, place).add_noised()

    def settle(self) -> None:
        """Add all of it to the evidence of the stage."""
        draft, stage = self._draft, self._draft.stage
        if not self._canaries and not self._controls:
            return
        new = self._evidence().during(_span(draft))
        draft.change_stage(
            draft.rollout.stage_index, evidence=stage.evidence.plus(new), heard=stage.heard + self._heard
        )
        draft.outdate_verdict()

    def _arm(self, arms: _Arms, stratum: int, index: int) -> ArmSum:
        key = (group_of(index), stratum)
        if (arm := arms.get(key)) is None:
            arm = arms[key] = ArmSum(self._metrics)
        return arm

    def _evidence(self) -> Evidence:
        """Return all of it, and the part of each group."""
        nothing, evidence = Arm.empty(len(self._metrics)), Evidence.empty(len(self._metrics))
        canaries, controls = self._gathered(self._canaries), self._gathered(self._controls)
        for group in sorted(canaries.keys() | controls.keys()):
            canary, control = canaries.get(group, nothing), controls.get(group, nothing)
            evidence = evidence.plus(Evidence(canary, control, groups={group: Evidence(canary, control)}))
        return evidence

    def _gathered(self, arms: _Arms) -> dict[int, Arm]:
        """Return the arm of each group."""
        names = self._draft.rollout.strata
        by_group: dict[int, dict[str, Arm]] = {}
        for (group, stratum), arm in arms.items():
            by_group.setdefault(group, {})[names[stratum]] = arm.arm()
        return {group: gathered(of_group, len(self._metrics)) for group, of_group in by_group.items()}
