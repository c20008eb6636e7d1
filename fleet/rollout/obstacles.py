"""What keeps a device from following a rollout, or from following at once; known before anything moves."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fleet.protocol.messages import Capabilities
from fleet.rollout.claims import Claim
from fleet.rollout.plans.plan import Plan


class Obstacle(StrEnum):
    """Why a device would not follow, or not at once."""

    UNSUPPORTED = "unsupported"
    SPACE = "space"
    WINDOW = "window"
    SHADOW = "shadow"
    QUARANTINED = "quarantined"
    HELD = "held"
    CLAIMED = "claimed"


class Candidate(msgspec.Struct, frozen=True):
    """A device that the rollout would reach, and what is known of it.

    Attributes:
        capabilities: What it said last.
        cohorts: Its value of each attribute that the hub groups devices by.
        is_held: Whether the hub holds its updates.
        is_quarantined: Whether the hub takes nothing from it.
        claim: Of another rollout that keeps it; None if there is none.
    """

    capabilities: Capabilities
    cohorts: dict[str, str] = {}
    is_held: bool = False
    is_quarantined: bool = False
    claim: Claim | None = None


class Refusal(msgspec.Struct, frozen=True):
    """A device that would not follow, or not at once, and why."""

    device_id: str
    obstacle: Obstacle
    detail: str


def obstacles(candidate: Candidate, plan: Plan, size_bytes: int) -> list[tuple[Obstacle, str]]:
    """Return what would keep a device that is reached and can run the version from following, or at once.

    Args:
        candidate: The device.
        plan: The plan.
        size_bytes: What it would fetch.
    """
    can, found = candidate.capabilities, []
    if size_bytes > can.free_bytes:
        found.append((Obstacle.SPACE, f"It needs {size_bytes:,} bytes; {can.free_bytes:,} are free."))
    if plan.maintenance is not None and not can.keeps_windows:
        found.append((Obstacle.WINDOW, "Its agent is of a release that keeps to no plan's window."))
    if plan.shadow_s > 0 and not can.obeys_wishes:
        found.append((Obstacle.SHADOW, "Its agent is of a release that knows no shadow."))
    if candidate.is_quarantined:
        found.append((Obstacle.QUARANTINED, "It is in quarantine: the hub hears nothing of it."))
    if candidate.is_held:
        found.append((Obstacle.HELD, "The hub holds its updates: the version will wait."))
    return found


def claimed(claim: Claim) -> tuple[Obstacle, str]:
    """Return that another rollout keeps a device: this one does not reach it."""
    first = "" if claim.is_started else " if it starts first"
    return Obstacle.CLAIMED, f"Rollout {claim.rollout} keeps it{first}."
