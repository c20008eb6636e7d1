"""The shapes of requests and answers about captured samples."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.protocol.capture import MAX_BYTES_PER_DAY, MAX_LIFETIME_S, MAX_SAMPLE_SIZE_BYTES
from fleet.protocol.samples import Reason
from hub.api.schemas import Name, Schema

MAX_DEVICES = 10_000


class CapturePolicyIn(Schema):
    """Which inputs devices capture, and how much of them."""

    uncertain_below: Annotated[float, Field(ge=0, le=1)] = 0.0
    drifted: bool = False
    random_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    bytes_per_day: Annotated[int, Field(ge=1, le=MAX_BYTES_PER_DAY)] = 1024 * 1024
    sample_bytes: Annotated[int, Field(ge=1, le=MAX_SAMPLE_SIZE_BYTES)] = 64 * 1024
    lifetime_s: Annotated[float, Field(ge=60, le=MAX_LIFETIME_S)] = 30 * 86400.0
    redaction: Name | None = None


class CaptureIn(Schema):
    """Whom a policy is for: devices by id, by a target, or both; null for the policy takes it back."""

    devices: Annotated[list[Name], Field(default_factory=list, max_length=MAX_DEVICES)]
    where: Annotated[str, Field(max_length=4096)] | None = None
    policy: CapturePolicyIn | None


class CapturedOut(Schema):
    """Devices whose policy changed, and those that cannot capture, with the reason."""

    changed: list[str]
    refused: dict[str, str]


class CaptureOut(Schema):
    """One device's policy, and how it goes as the device told last.

    ``waiting`` is how many samples the hub does not have yet; ``dropped`` how many were not captured that
    would have been, by cause, since the agent's start.
    """

    device_id: str
    model: str
    at_s: float
    by: str
    expires_at_s: int
    bytes_per_day: int
    sample_bytes: int
    uncertain_below: float
    drifted: bool
    random_share: float
    redaction: str | None
    waiting: int | None
    dropped: dict[str, int]


class SampleOut(Schema):
    """A captured sample without its inputs."""

    number: int
    device_id: str
    model: str
    version: int
    at_s: float
    received_at_s: float
    reason: Reason
    size_bytes: int
    feature: str
    redaction: str | None
    category: int | None
    confidence: float | None


class DeletionIn(Schema):
    """Which samples go: those for which all that is given holds; at least one thing is."""

    model: Name | None = None
    device_id: Name | None = None
    reason: Reason | None = None
    since_s: float | None = None
    until_s: float | None = None


class DeletionOut(Schema):
    """How many samples went."""

    deleted: int
