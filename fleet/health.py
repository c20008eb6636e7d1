"""What "healthy" means, for a device, a model and a fleet.

A device has the first status of this table whose condition holds:

=========  ==================================================================================================
OFFLINE    it is not connected, or was not heard of for too long
UNHEALTHY  it is in quarantine; or for some model: its last deployment failed, or it runs another version than
           desired with no deployment under way, or the runtime fails too large a share of requests, or drift
           is alarmed
UPDATING   for some model it runs another version than desired, and a deployment is under way
HEALTHY    none of these
=========  ==================================================================================================

Every status but HEALTHY comes with all its reasons, not only the first.

A judgement holds until something that it rests on changes, or until the time that it names, when silence has
lasted too long or a quarantine ends. So a hub keeps judgements and their counts, and judges again only what
changed (`hub.health`); `fleet_health`, which judges everything anew, says what the counts must be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause

NO_VERSION = "none"
"""Stands for "no version" among the keys of a count by version."""


class HealthStatus(StrEnum):
    """See the head of this file."""

    HEALTHY = "HEALTHY"
    UPDATING = "UPDATING"
    UNHEALTHY = "UNHEALTHY"
    OFFLINE = "OFFLINE"


_GRAVEST_FIRST = (HealthStatus.OFFLINE, HealthStatus.UNHEALTHY, HealthStatus.UPDATING)


class HealthPolicy(msgspec.Struct, frozen=True):
    """Where the lines are drawn.

    Attributes:
        silence_limit_s: Silence for longer makes a device OFFLINE, whatever its connection says.
        maximum_error_share: Greatest share of failed requests of a healthy device.
        minimum_requests: Fewer requests say nothing about that share.
    """

    silence_limit_s: float
    maximum_error_share: float = 0.05
    minimum_requests: int = 20


class ModelOnDevice(msgspec.Struct, frozen=True):
    """What is known of one model on one device.

    Attributes:
        model: Name.
        desired_version: What the hub wants; None for nothing.
        reported_version: What the device says it runs; None for nothing.
        deployment: State of its last deployment; None if there was none.
        cause: Why that failed.
        predictions: Answers that the version it runs has given, in all.
        errors: Requests on which the runtime failed with it, in all.
        drifting: Features that the drift alarm names.
    """

    model: str
    desired_version: int | None
    reported_version: int | None
    deployment: DeploymentState | None = None
    cause: Cause | None = None
    predictions: int = 0
    errors: int = 0
    drifting: tuple[str, ...] = ()


class DeviceFacts(msgspec.Struct, frozen=True):
    """What is known of one device.

    Attributes:
        device_id: The device.
        connected: What its presence message said last.
        last_seen_s: Hub time when the device was last heard of; None if never.
        models: What it runs, or should.
        quarantined_until_s: Until when the hub refuses its records, because they were too many; None for not.
    """

    device_id: str
    connected: bool
    last_seen_s: float | None
    models: tuple[ModelOnDevice, ...] = ()
    quarantined_until_s: float | None = None


class DeviceHealth(msgspec.Struct, frozen=True):
    """One device, judged.

    Attributes:
        device_id: The device.
        status: See the head of this file.
        reasons: Why it is not HEALTHY.
        holds_until_s: It is to be judged again after this time, though nothing changes; None for never.
    """

    device_id: str
    status: HealthStatus
    reasons: tuple[str, ...]
    holds_until_s: float | None = None


class ModelHealth(msgspec.Struct, frozen=True):
    """One model across the fleet.

    Attributes:
        model: Name.
        devices: How many devices run it or should.
        by_version: Devices by the version they report, `NO_VERSION` for none.
        as_desired: How many run what is desired.
        predictions: Answers, in all.
        errors: Failed requests, in all.
        drifting: Devices whose drift alarm is raised.
    """

    model: str
    devices: int
    by_version: dict[str, int]
    as_desired: int
    predictions: int
    errors: int
    drifting: int

    @property
    def error_share(self) -> float | None:
        """Share of requests that failed; None without requests."""
        return error_share(self.predictions, self.errors)


class FleetHealth(msgspec.Struct, frozen=True):
    """The fleet, judged.

    Attributes:
        devices: How many there are.
        by_status: Devices by status; every status is a key.
        models: Each model, by name.
    """

    devices: int
    by_status: dict[HealthStatus, int]
    models: tuple[ModelHealth, ...]


def device_health(facts: DeviceFacts, now_s: float, policy: HealthPolicy) -> DeviceHealth:
    """Judge one device.

    Args:
        facts: What is known of it.
        now_s: Hub time, Unix seconds.
        policy: Where the lines are drawn.
    """
    found: list[tuple[HealthStatus, str]] = []
    absence = _absence(facts, now_s, policy)
    if absence:
        found.append((HealthStatus.OFFLINE, absence))
    quarantined = facts.quarantined_until_s is not None and now_s <= facts.quarantined_until_s
    if quarantined:
        found.append((HealthStatus.UNHEALTHY, "in quarantine: it sent too much"))
    for model in facts.models:
        found.extend(_model_findings(model, policy))
    status = min((s for s, _ in found), key=_GRAVEST_FIRST.index, default=HealthStatus.HEALTHY)
    ends = [facts.quarantined_until_s] if quarantined else []
    if not absence and facts.last_seen_s is not None:
        ends.append(facts.last_seen_s + policy.silence_limit_s)
    until_s = min((end for end in ends if end is not None), default=None)
    return DeviceHealth(facts.device_id, status, tuple(reason for _, reason in found), until_s)


def model_health(model: str, fleet: Iterable[DeviceFacts]) -> ModelHealth:
    """Add up one model over the devices.

    Args:
        model: Name.
        fleet: Devices, with or without the model.
    """
    held = [(facts.device_id, m) for facts in fleet for m in facts.models if m.model == model]
    return ModelHealth(
        model=model,
        devices=len(held),
        by_version=dict(Counter(_version(m.reported_version) for _, m in held)),
        as_desired=sum(m.reported_version == m.desired_version for _, m in held),
        predictions=sum(m.predictions for _, m in held),
        errors=sum(m.errors for _, m in held),
        drifting=sum(bool(m.drifting) for _, m in held),
    )


def fleet_health(fleet: Iterable[DeviceFacts], now_s: float, policy: HealthPolicy) -> FleetHealth:
    """Judge the whole fleet.

    Args:
        fleet: Every device.
        now_s: Hub time, Unix seconds.
        policy: Where the lines are drawn.
    """
    known = list(fleet)
    judged = [device_health(facts, now_s, policy) for facts in known]
    counts = Counter(health.status for health in judged)
    names = sorted({model.model for facts in known for model in facts.models})
    return FleetHealth(
        devices=len(known),
        by_status={status: counts[status] for status in HealthStatus},
        models=tuple(model_health(name, known) for name in names),
    )


def error_share(predictions: int, errors: int) -> float | None:
    """Return the share of requests that failed; None without requests."""
    requests = predictions + errors
    return errors / requests if requests else None


def _absence(facts: DeviceFacts, now_s: float, policy: HealthPolicy) -> str:
    if not facts.connected:
        return "not connected"
    if facts.last_seen_s is None:
        return "not heard of yet"
    # The same as is said of when a judgement ends, to the last bit: a difference could round the other way.
    silent = now_s > facts.last_seen_s + policy.silence_limit_s
    return f"not heard of for more than {policy.silence_limit_s:g} s" if silent else ""


def _model_findings(model: ModelOnDevice, policy: HealthPolicy) -> list[tuple[HealthStatus, str]]:
    found: list[tuple[HealthStatus, str]] = []
    under_way = model.deployment is not None and not model.deployment.is_terminal
    if model.deployment is not None and model.deployment.is_failure:
        why = f": {model.cause.detail}" if model.cause else ""
        found.append((HealthStatus.UNHEALTHY, f"{model.model}: last deployment {model.deployment}{why}"))
    if model.reported_version != model.desired_version:
        status = HealthStatus.UPDATING if under_way else HealthStatus.UNHEALTHY
        runs, wanted = _named(model.reported_version), _named(model.desired_version)
        found.append((status, f"{model.model}: runs {runs}, {wanted} is desired"))
    share = error_share(model.predictions, model.errors) or 0.0
    enough = model.predictions + model.errors >= policy.minimum_requests
    if enough and share > policy.maximum_error_share:
        found.append((HealthStatus.UNHEALTHY, f"{model.model}: {share:.1%} of requests fail"))
    if model.drifting:
        found.append((HealthStatus.UNHEALTHY, f"{model.model}: drift in {', '.join(model.drifting)}"))
    return found


def _version(version: int | None) -> str:
    return NO_VERSION if version is None else str(version)


def _named(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
