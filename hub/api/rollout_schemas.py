"""The shapes of requests and answers about rollouts, see `hub.api.schemas`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fleet.protocol.assignment import VariantPolicy
from hub.api.schemas import ActionIn, CauseOut, Name, Schema


class RolloutIn(Schema):
    """A rollout to create. Without a plan, the default one is used."""

    model: Name
    version: Annotated[int, Field(ge=1, le=2**53)]
    plan: dict[str, Any] | str | None = Field(
        default=None,
        description="An object, or the text of a plan file (YAML or JSON): refusals then name the line.",
    )
    devices: list[Name] | None = Field(default=None, description="The devices to reach; null for all.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    variant_policy: VariantPolicy | None = Field(default=None, description="In place of the plan's.")


class RollbackIn(Schema):
    """Bring every device that runs a newer version of a model back to an older one."""

    model: Name
    to: Annotated[int, Field(ge=1, le=2**53)]
    reason: str = ""


class PromoteIn(Schema):
    """An override needs a reason."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class AbortIn(ActionIn):
    """Stop a rollout; keep what was installed, or bring it back."""

    roll_back: bool = False


class DeploymentOut(Schema):
    """One device's part in a rollout."""

    device_id: str
    stage: int
    previous_version: int | None
    state: str | None
    cause: CauseOut | None
    restore_state: str | None
    restore_cause: CauseOut | None


class StageOut(Schema):
    """One stage of a rollout."""

    devices: int
    succeeded: int
    failed: int
    verdict: str | None


class RolloutOut(Schema):
    """A rollout."""

    number: int
    model: str
    version: int
    kind: str
    status: str
    stage: int
    stages: list[StageOut]
    cause: CauseOut | None
    verdict: str | None
    pause_reason: str
    revision: int
    created_at_s: float
    counts: dict[str, int]


class RolloutDetailOut(RolloutOut):
    """A rollout with every device's part."""

    plan: dict[str, Any]
    deployments: list[DeploymentOut]


class ShadowPairOut(Schema):
    """How often one class of the active version met another of the candidate, by their numbers."""

    active: int
    candidate: int
    samples: int


class ShadowOut(Schema):
    """What a rollout's devices reported of its version in the shadow of their active one, added up.

    ``compared`` and ``disagreed`` count samples; ``errors``, ``not_finite`` and ``left_out`` count requests.
    """

    devices: int
    compared: int
    disagreed: int
    disagreed_share: float | None
    errors: int
    not_finite: int
    left_out: int
    active_latency_p50_us: float | None
    active_latency_p99_us: float | None
    candidate_latency_p50_us: float | None
    candidate_latency_p99_us: float | None
    pairs: list[ShadowPairOut]


class HistoryOut(Schema):
    """One line of a rollout's history."""

    at_s: float
    kind: str
    text: str
