"""Of whom a gate that cannot decide has heard nothing: canaries and controls without telemetry that counts.

A canary is silent if no window of the version has counted since it was ordered; a control, if none has in the
current stage. Silent controls are told of where they are what is missing: where there are too few samples of
controls, or fewer controls than canaries were heard of, since the smaller side bounds what can be proven.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fleet.rollout.explanation.reasons import Reason
from fleet.rollout.gates.comparison import Basis
from fleet.rollout.gates.gate import MetricVerdict, Outcome
from fleet.rollout.state.columns import NO_VERSION, SUCCEEDED, WAITING, Mask, Places, Rows
from fleet.rollout.state.deployments import scan
from fleet.rollout.state.masks import Test, waits, was_sent
from fleet.rollout.state.rollout import Kind, Rollout, Status

_SIDES = {
    Reason.SILENT_CANARY: ("canaries", "of the version"),
    Reason.SILENT_CONTROL: ("controls", "in this stage"),
}


class Silence(NamedTuple):
    """One side of the comparison, of which the gate needs more.

    Attributes:
        reason: Which side.
        devices: How many devices it has.
        silent: The places of those of which nothing was heard, ascending.
        is_short: Whether the side has fewer samples, or devices, than the gate asks for.
    """

    reason: Reason
    devices: int
    silent: Places
    is_short: bool

    @property
    def sentence(self) -> str:
        """What the gate needs."""
        side, where = _SIDES[self.reason]
        heard = f"{self.devices - len(self.silent):,} of {self.devices:,}"
        return f"The gate hears more of the {side}: so far {heard} sent telemetry {where}."


def silences(rollout: Rollout) -> list[Silence]:
    """Return the sides of which a gate that cannot decide has heard too little.

    There are none while deployments of the stage are open: these are waited for first.
    """
    verdict = rollout.verdict
    if rollout.status not in {Status.RUNNING, Status.PAUSED} or rollout.kind is not Kind.UPDATE:
        return []
    if not rollout.stages or rollout.stages[-1].ended_s is not None or rollout.revoked:
        return []
    if rollout.stages[-1].open or rollout.tally[rollout.stage_index][WAITING]:
        return []
    if verdict is None or verdict.outcome is not Outcome.INCONCLUSIVE:
        return []
    open_metrics = [metric for metric in verdict.metrics if metric.outcome is Outcome.INCONCLUSIVE]
    canaries = _side(rollout, Reason.SILENT_CANARY, _is_canary, _is_unheard)
    found = [canaries._replace(is_short=_is_short(rollout, open_metrics, is_canary=True) or not open_metrics)]
    if any(metric.basis is Basis.CONCURRENT for metric in open_metrics):
        number = rollout.stage_index
        controls = _side(
            rollout,
            Reason.SILENT_CONTROL,
            lambda rows: _is_control(rows, number),
            lambda rows: rows["counted_in"] < number,
        )
        fewer = controls.devices - len(controls.silent) < canaries.devices - len(canaries.silent)
        if (fewer and len(controls.silent)) or _is_short(rollout, open_metrics, is_canary=False):
            found.append(controls._replace(is_short=True))
    return found


def _side(rollout: Rollout, reason: Reason, is_of_it: Test, is_silent: Test) -> Silence:
    pages = rollout.deployments.pages
    silent = scan(pages, lambda rows: np.asarray(is_of_it(rows) & is_silent(rows)))
    return Silence(reason, len(scan(pages, is_of_it)), silent, is_short=False)


def _is_short(rollout: Rollout, metrics: Sequence[MetricVerdict], *, is_canary: bool) -> bool:
    """Tell whether any of these metrics has fewer samples of a side than it asks for."""
    least = {gate.metric: gate.minimum_samples for gate in rollout.plan.gate.metrics}
    return any(
        (metric.canary if is_canary else metric.control).total < least[metric.metric]
        for metric in metrics
        if not metric.classes and (is_canary or metric.basis is Basis.CONCURRENT)
    )


def _is_canary(rows: Rows) -> Mask:
    """Tell which devices run the version for good; those in trial are on their way."""
    return np.asarray(was_sent(rows) & (rows["state"] == SUCCEEDED))


def _is_unheard(rows: Rows) -> Mask:
    return np.asarray(rows["counted_in"] < 0)


def _is_control(rows: Rows, stage: int) -> Mask:
    """Tell which devices of stages to come run another version; those of this one wait for their order."""
    return np.asarray(waits(rows) & (rows["stage"] > stage) & (rows["previous_version"] != NO_VERSION))
