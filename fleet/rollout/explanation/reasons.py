"""Why a device has not ended, or how it ended; and how that is said."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.state.columns import Deployment
from fleet.rollout.state.rollout import Rollout, Status
from fleet.sentences import rough_duration


class Reason(StrEnum):
    """Why a device has not ended, or how it ended."""

    PACE = "waits_for_pace"
    RETRY = "waits_for_retry"
    OFFLINE = "offline"
    QUARANTINED = "quarantined"
    HELD = "held"
    WINDOW = "waits_for_window"
    UNANSWERED = "unanswered"
    INSTALLING = "installing"
    SHADOW = "in_shadow"
    TRIAL = "in_trial"
    GOING_BACK = "going_back"
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
    Reason.WINDOW: "ready, and waiting for the maintenance window",
    Reason.UNANSWERED: "ordered, without an answer so far",
    Reason.INSTALLING: "installing",
    Reason.SHADOW: "computing in the shadow of the active version",
    Reason.TRIAL: "in trial",
    Reason.GOING_BACK: "going back",
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
    """

    is_online: bool
    last_seen_s: float | None = None
    is_held: bool = False
    is_quarantined: bool = False


def reason_of(rollout: Rollout, part: Deployment, known: Facts) -> Reason:
    """Return why a device that has its order has not ended."""
    if known.is_quarantined:
        return Reason.QUARANTINED
    if not known.is_online:
        return Reason.OFFLINE
    if known.is_held:
        return Reason.HELD
    if rollout.status is Status.ROLLING_BACK:
        assert part.restore is not None
        return BY_STATE[part.restore.state]
    if part.attempt.state is DeploymentState.STAGED and rollout.plan.maintenance is not None:
        return Reason.WINDOW
    return BY_STATE[part.attempt.state]


def detail_of(rollout: Rollout, part: Deployment, known: Facts, reason: Reason, now_s: float) -> str:
    """Return since when, and how long the device has yet."""
    if reason is Reason.OFFLINE:
        seen_s = known.last_seen_s
        said = "never heard of" if seen_s is None else f"last heard of {rough_duration(now_s - seen_s)} ago"
    else:
        attempt = part.restore if rollout.status is Status.ROLLING_BACK else part.attempt
        assert attempt is not None
        said = f"{attempt.state.value} for {rough_duration(now_s - attempt.since_s)}"
    left = f", runs out of time in {rough_duration(part.due_s - now_s)}" if part.due_s is not None else ""
    return said + left
