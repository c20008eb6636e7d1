"""The commands that alerts state, as lines for a shell: quoted, so that they can be copied as they stand.

A test has the command line itself parse each of them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping


def fleet_health() -> str:
    """Return the command that shows the fleet's health."""
    return _line("fleet", "health")


def fleet_alarms(model: str) -> str:
    """Return the command that shows a model's drift alarms, and what the affected devices share."""
    return _line("fleet", "alarms", "--model", model)


def fleet_quality(model: str, by: str | None = None) -> str:
    """Return the command that shows how good a model's answers are."""
    return _line("fleet", "quality", "--model", model, *(() if by is None else ("--by", by)))


def device_show(device_id: str) -> str:
    """Return the command that shows a device."""
    return _line("device", "show", device_id)


def device_lift_quarantine(device_id: str) -> str:
    """Return the command that has a device heard again."""
    return _line("device", "lift-quarantine", device_id)


def device_list() -> str:
    """Return the command that lists the devices with their health."""
    return _line("device", "list")


def fleet_devices(target: str) -> str:
    """Return the command that finds the devices that a target means."""
    return _line("fleet", "devices", "--where", target)


def rollback(model: str, to: int, reason: str, target: str | None = None) -> str:
    """Return the command that brings a model's devices, or those of a target, back to an older version."""
    only = () if target is None else ("--target", target)
    return _line("rollback", model, "--to", str(to), *only, "--reason", reason)


def lead_away(model: str, version: int, to: int, reason: str, by_version: Mapping[int, int]) -> str:
    """Return the command that brings the devices which run a version back to an older one, and nobody else.

    Args:
        model: Name of the model.
        version: The version.
        to: The older one.
        reason: Why.
        by_version: How many devices run each version of the model.
    """
    others = any(number and to < other != version for other, number in by_version.items())
    return rollback(model, to, reason, running(model, version) if others else None)


def running(model: str, version: int) -> str:
    """Return the target that means the devices which run a version."""
    return f"version({json.dumps(model)}) == {version}"


def rollout_status(number: int) -> str:
    """Return the command that shows where a rollout is and why."""
    return _line("rollout", "status", str(number))


def rollout_explain(number: int) -> str:
    """Return the command that says why a rollout is where it is."""
    return _line("rollout", "explain", str(number))


def rollout_approve(number: int, stage: int) -> str:
    """Return the command by which a second person lets a stage begin, counted from 1."""
    return _line("rollout", "approve", str(number), "--stage", str(stage))


def rollout_abort(number: int, reason: str) -> str:
    """Return the command that ends a rollout and brings its devices back."""
    return _line("rollout", "abort", str(number), "--rollback", "--reason", reason)


def _line(*words: str) -> str:
    return shlex.join(("muster", *words))
