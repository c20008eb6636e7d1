"""Why a device has not ended, or how it ended; and how that is said."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.state.columns import Attempt, Deployment
from fleet.rollout.state.rollout import Rollout, Status
from fleet.sentences import rough_duration


class Reason(StrEnum):
    """Why a device has not ended, or how it ended."""

    PACE = "waits_for_pace"
    RETRY = "waits_for_retry"
    OFFLINE = "offline"
    QUARANTINED = "quarantined"
    HELD = "held"
    WAITS = "waits_at_device"
    WINDOW = "waits_for_window"
    UNANSWERED = "unanswered"
    INSTALLING = "installing"
    SHADOW = "in_shadow"
    TRIAL = "in_trial"
    GOING_BACK = "going_back"
    SILENT_CANARY = "silent_canary"
    SILENT_CONTROL = "silent_control"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


SAID = {
    Reason.PACE: "waiting for the order, which is given as fast as the plan allows",
    Reason.RETRY: "waiting for another try",
    Reason.OFFLINE: "offline",
    Reason.QUARANTINED: "in quarantine: the hub hears nothing",
    Reason.HELD: "held by the hub",
    Reason.WAITS: "ready, and waiting, each for something else",
    Reason.WINDOW: "ready, and waiting for the maintenance window",
    Reason.UNANSWERED: "ordered, without an answer so far",
    Reason.INSTALLING: "installing",
    Reason.SHADOW: "computing in the shadow of the active version",
    Reason.TRIAL: "in trial",
    Reason.GOING_BACK: "going back",
    Reason.SILENT_CANARY: "running the version, without telemetry of it that counts so far",
    Reason.SILENT_CONTROL: "to compare it with, without telemetry in this stage",
    Reason.TIMED_OUT: "out of time",
    Reason.REFUSED: "not able or willing to run it",
    Reason.FAILED: "failed",
    Reason.ROLLED_BACK: "back by themselves",
}
BY_STATE = {
    DeploymentState.QUEUED: Reason.UNANSWERED,
    DeploymentState.DOWNLOADING: Reason.INSTALLING,
    DeploymentState.VERIFYING: Reason.INSTALLING,
    DeploymentState.STAGED: Reason.INSTALLING,
    DeploymentState.SHADOW: Reason.SHADOW,
    DeploymentState.TRIAL: Reason.TRIAL,
    DeploymentState.TIMED_OUT: Reason.TIMED_OUT,
    DeploymentState.REJECTED: Reason.REFUSED,
    DeploymentState.FAILED: Reason.FAILED,
    DeploymentState.ROLLED_BACK: Reason.ROLLED_BACK,
}


class Facts(msgspec.Struct, frozen=True):
    """What is known of a device besides its deployment.

    Attributes:
        is_online: Whether it is connected.
        last_seen_s: When the hub last heard of it, Unix seconds; None for never.
        is_held: Whether the hub holds its updates.
        is_quarantined: Whether the hub takes nothing from it.
        waits_for: What the version that it has ready waits for, as the device said last: a hold by people at
            it, its own windows or the rollout's, its readiness program; empty if it waits for nothing.
        waits_in: The deployment in which it does.
    """

    is_online: bool
    last_seen_s: float | None = None
    is_held: bool = False
    is_quarantined: bool = False
    waits_for: str = ""
    waits_in: str = ""


def reason_of(rollout: Rollout, part: Deployment, known: Facts) -> Reason:
    """Return why a device that has its order has not ended."""
    if known.is_quarantined:
        return Reason.QUARANTINED
    if not known.is_online:
        return Reason.OFFLINE
    if known.is_held:
        return Reason.HELD
    attempt = _under_way(rollout, part)
    if (
        attempt.state is DeploymentState.STAGED
        and known.waits_for
        and known.waits_in == attempt.deployment_id
    ):
        return Reason.WAITS
    if attempt is part.attempt and attempt.state is DeploymentState.STAGED and rollout.plan.maintenance:
        return Reason.WINDOW
    return BY_STATE[attempt.state]


def detail_of(rollout: Rollout, part: Deployment, known: Facts, reason: Reason, now_s: float) -> str:
    """Return since when a device is where it is, and how long it has yet.

    Args:
        rollout: Says in which direction it goes.
        part: Of the device; it has not ended in that direction.
        known: What the hub knows of the device.
        reason: Of `reason_of`.
        now_s: Hub time, Unix seconds.
    """
    if reason is Reason.OFFLINE:
        said = heard_of(known, now_s)
    else:
        attempt = _under_way(rollout, part)
        said = f"{attempt.state.value} for {rough_duration(now_s - attempt.since_s)}"
    left = f", runs out of time in {rough_duration(part.due_s - now_s)}" if part.due_s is not None else ""
    return said + left


def heard_of(known: Facts, now_s: float) -> str:
    """Return when the hub last heard of a device."""
    if known.last_seen_s is None:
        return "never heard of"
    return f"last heard of {rough_duration(now_s - known.last_seen_s)} ago"


def _under_way(rollout: Rollout, part: Deployment) -> Attempt:
    """Return the attempt in the direction in which the rollout goes."""
    if rollout.status is not Status.ROLLING_BACK:
        return part.attempt
    assert part.restore is not None
    return part.restore
