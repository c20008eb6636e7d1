"""The shapes of the dry run of a rollout, see `hub.api.schemas` and `fleet.rollout.preview`."""

from __future__ import annotations

from hub.api.rollout_schemas import RolloutIn
from hub.api.schemas import Schema


class DryRunIn(RolloutIn):
    """A rollout to work out."""

    all_named: bool = False


class VariantPreviewOut(Schema):
    """What devices of one variant would fetch."""

    variant: str
    devices: int
    size_bytes: int


class StagePreviewOut(Schema):
    """What one stage would do."""

    name: str
    devices: int
    strata: dict[str, dict[str, int]]
    named: list[str]
    broadcast_bytes: int
    most_bytes: int
    expected_s: float
    longest_s: float


class RefusalOut(Schema):
    """A device that would not follow, or not at once, and why."""

    device_id: str
    obstacle: str
    detail: str


class PreviewOut(Schema):
    """What a rollout would do."""

    model: str
    version: int
    devices: int
    left_out: int
    stages: list[StagePreviewOut]
    variants: list[VariantPreviewOut]
    broadcast_bytes: int
    most_bytes: int
    expected_s: float
    longest_s: float
    typical_install_s: float | None
    obstacles: dict[str, int]
    refusals: list[RefusalOut]
