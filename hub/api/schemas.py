"""The shapes of the API's requests and answers, as OpenAPI shows them.

They are a contract of their own: what the store keeps may change without the API changing.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import Cause
from fleet.protocol.names import NAME_PATTERN
from fleet.protocol.wishes import LogLevel
from hub.api.reasons import Reason

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Item = TypeVar("Item")


class Schema(BaseModel):
    """What all shapes share: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Page(Schema, Generic[Item]):
    """A page of a list. Pass ``next`` as ``after`` to get the following one; null after the last."""

    items: list[Item]
    next: str | None = None


class Problem(Schema):
    """Problem details (RFC 9457), with our stable ``code`` and a ``remedy``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str


class CauseOut(Schema):
    """Why something failed."""

    code: str
    detail: str

    @classmethod
    def of(cls, cause: Cause | None) -> Self | None:
        """Return a cause as the API shows it; None for none."""
        return None if cause is None else cls(code=cause.code, detail=cause.detail)


class DatasetOut(Schema):
    """A registered dataset."""

    name: str
    sha256: str
    size_bytes: int
    samples: int
    feature_shape: list[int]
    classes: list[str]
    created_at_s: float


class TrainIn(Schema):
    """What to train."""

    dataset: Name
    estimator: str = "mlp"
    hyperparameters: dict[str, int | float | str | bool] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    minimum_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.8
    embedding: Annotated[str, Field(max_length=200)] = ""


class ProgressOut(Schema):
    """How far a training is."""

    step: str
    done: int
    of: int


class RevocationOut(Schema):
    """That a version was withdrawn."""

    at_s: float
    by: str
    reason: str


class VersionOut(Schema):
    """One version of a model."""

    model: str
    version: int
    status: str
    dataset: str
    estimator: str
    hyperparameters: dict[str, Any]
    seed: int
    created_at_s: float
    manifest_sha256: str | None
    report: dict[str, Any] | None
    cause: CauseOut | None
    released_at_s: float | None
    revoked: RevocationOut | None
    progress: ProgressOut | None = None


class EnrolmentTokenIn(Schema):
    """How long a one-time token may be used."""

    lifetime_s: Annotated[float, Field(gt=0, le=30 * 86400)] = 86400.0


class EnrolmentTokenOut(Schema):
    """A one-time token: shown once, stored only as a hash."""

    token: str
    expires_at_s: float


class OrderOut(Schema):
    """What a device should run of one model."""

    model: str
    version: int
    variant: str
    alternatives: list[str]
    variant_policy: VariantPolicy
    deployment_id: str


class ModelStateOut(Schema):
    """What a device says it runs of one model."""

    model: str
    version: int | None
    variant: str | None
    phase: str
    deployment_id: str | None
    waiting_for: str | None = None


class DeviceOut(Schema):
    """A device of the fleet."""

    device_id: str
    attributes: dict[str, str]
    tags: list[str]
    architecture: str
    hardware: str
    agent_version: str
    runtimes: dict[str, str]
    enrolled_at_s: float
    last_seen_at_s: float | None
    online: bool
    health: str
    reasons: list[str]
    sequence: int
    accepted_sequence: int
    models: list[ModelStateOut]


class HoldOut(Schema):
    """That a device's updates are held: since when, by whom and why."""

    at_s: float
    by: str
    reason: str


class WishesOut(Schema):
    """What operators wish of a device.

    ``diagnostics`` is the last request for a bundle, ``count_noise_epsilon`` how private counts have to be.
    """

    log_level: LogLevel | None
    held: HoldOut | None
    diagnostics: str | None
    count_noise_epsilon: float | None = None


class ActionOut(Schema):
    """What an operator did about a device."""

    at_s: float
    by: str
    text: str


class DiagnosticsOut(Schema):
    """A diagnostic bundle that a device sent; ``at_s`` is the device's time."""

    request_id: str
    at_s: float
    received_at_s: float
    size_bytes: int


class QuarantineOut(Schema):
    """From when to when nothing is taken of a device, because it sent too much."""

    since_s: float
    until_s: float


class DeviceDetailOut(DeviceOut):
    """A device with what it should run and what is wished of it."""

    desired: list[OrderOut]
    wishes: WishesOut
    quarantine: QuarantineOut | None
    diagnostics: list[DiagnosticsOut]
    actions: list[ActionOut]


class LogLevelIn(Schema):
    """From which level on a device logs; null for its own setting."""

    level: LogLevel | None


class DiagnosticsRequestOut(Schema):
    """A request for a diagnostic bundle."""

    request_id: str


class TotalsOut(Schema):
    """What one device did with one version, added up.

    The interval of the accuracy holds the truth with probability 95 %, however often one looks;
    ``unknown_labels`` says how often labels came for predictions that the device did not know.
    """

    device_id: str
    model: str
    version: int
    predictions: int
    errors: int
    labelled: int
    correct: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    unknown_labels: int
    latency_p50_us: float | None
    latency_p99_us: float | None


class ActionIn(Schema):
    """Why an operator does something."""

    reason: Reason = ""


class FeatureDriftOut(Schema):
    """The last look at one feature, see the reference page on drift."""

    feature: str
    alarm: bool
    samples: int
    evidence: float
    threshold: float
    split: str
    share: float
    expected: float
    distance: float
    total_variation: float
    psi: float
    jensen_shannon: float
    anderson_darling: float
    chi_square: float
    wasserstein: float | None
    missing: float
    outside: float


class DriftOut(Schema):
    """Drift of one device and version."""

    device_id: str
    model: str
    version: int
    alarm: bool
    looks: int
    features: list[FeatureDriftOut]


class DeadLetterOut(Schema):
    """A message that could not be taken in."""

    topic: str
    received_at_s: float
    cause: CauseOut
