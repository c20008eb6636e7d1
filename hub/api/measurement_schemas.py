"""The shapes of answers about what devices measured of variants, see `hub.api.schemas`."""

from __future__ import annotations

from typing import Self

from msgspec.structs import asdict

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.records import Candidate, Measurement
from fleet.variants import ClassSummary
from hub.api.schemas import CauseOut, Schema


class CandidateOut(Schema):
    """How one variant did on a device; times are null where it was not measured."""

    variant: str
    runtime: str
    runtime_version: str
    size_bytes: int
    median_us: float | None
    p90_us: float | None
    cpu_us: float | None
    cause: CauseOut | None

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        """Return the shape of a candidate."""
        fields = asdict(candidate)
        if candidate.cause is not None:
            fields |= {"median_us": None, "p90_us": None, "cpu_us": None}
        return cls(**{**fields, "cause": CauseOut.of(candidate.cause)})


class MeasurementOut(Schema):
    """What a device measured of a version's variants, and which it chose; null if none passed."""

    model: str
    version: int
    deployment_id: str
    at_s: float
    policy: VariantPolicy
    chosen: str | None
    candidates: list[CandidateOut]

    @classmethod
    def of(cls, measurement: Measurement) -> Self:
        """Return the shape of a measurement."""
        return cls(
            model=measurement.model,
            version=measurement.version,
            deployment_id=measurement.deployment_id,
            at_s=measurement.at_s,
            policy=measurement.policy,
            chosen=measurement.chosen,
            candidates=[CandidateOut.of(candidate) for candidate in measurement.candidates],
        )


class VariantInClassOut(Schema):
    """How one variant does on devices of one class: medians over those that measured it."""

    variant: str
    devices: int
    passed: int
    median_us: float | None
    cpu_us: float | None
    size_bytes: int


class ClassOut(Schema):
    """What devices of the same hardware, architecture and runtimes measured of a version.

    ``agreed`` says for each policy which variant the others of the class are offered alone; null while
    they still have the choice.
    """

    hardware: str
    architecture: str
    runtimes: dict[str, str]
    devices: int
    variants: list[VariantInClassOut]
    agreed: dict[VariantPolicy, str | None]

    @classmethod
    def of(cls, summary: ClassSummary) -> Self:
        """Return the shape of a summary."""
        return cls(
            hardware=summary.device.hardware,
            architecture=summary.device.architecture,
            runtimes=dict(summary.device.runtimes),
            devices=summary.devices,
            variants=[VariantInClassOut(**variant._asdict()) for variant in summary.variants],
            agreed=summary.agreed,
        )
