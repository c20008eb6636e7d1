"""The shapes of the dry run of a rollout, see `hub.api.schemas` and `fleet.rollout.preview`."""

from __future__ import annotations

from typing import Self

import msgspec

from fleet.rollout.preview import Preview
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


class MetricForecastOut(Schema):
    """What is to be expected of one metric of a stage: ``likely``, ``open``, ``unlikely`` or ``unknown``.

    ``passes_after_s`` is the bake after which a harmless version has passed in half of all cases. To be found
    within the longest bake, ``least_harm`` more of the answers must be bad, or a quantile so many times as
    large.
    """

    metric: str
    feature: str
    expectation: str
    sentence: str
    chance: float | None
    passes_after_s: float | None
    devices_needed: int | None
    least_harm: float | None
    share: float | None
    answers_per_minute: float | None
    correlation: float | None
    devices: int


class StageForecastOut(Schema):
    """What is to be expected of a stage that the gate judges; ``stage`` counts from 1."""

    stage: int
    expectation: str
    canaries: int
    heard_share: float
    warning: str
    metrics: list[MetricForecastOut]


class PreviewOut(Schema):
    """What a rollout would do; ``refused`` says why it would not be created, ``misfit`` why not started."""

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
    forecast: list[StageForecastOut]
    warnings: list[str]
    waits: list[str]
    misfit: str
    refused: str
    remedy: str

    @classmethod
    def of(cls, told: Preview) -> Self:
        """Return what was worked out."""
        body = msgspec.to_builtins(told)
        for stage in body["forecast"]:
            stage["stage"] += 1
        return cls.model_validate(body)
