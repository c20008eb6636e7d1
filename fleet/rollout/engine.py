"""The rollout engine: ``step(state, event, now) -> (state, commands)``. Behaviour follows."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.rollout.events import Command, Event
from fleet.rollout.plan import Plan
from fleet.rollout.state import Kind, Rollout


def create(
    *,
    number: int,
    kind: Kind,
    model: str,
    version: int,
    manifest_sha256: str,
    plan: Plan,
    seed: int,
    devices: Mapping[str, int | None],
    now_s: float,
) -> Rollout:
    """Return a new rollout in status CREATED."""
    raise NotImplementedError


def step(rollout: Rollout, event: Event, now_s: float) -> tuple[Rollout, tuple[Command, ...]]:
    """Return the state after an event, and what is to be done."""
    raise NotImplementedError
