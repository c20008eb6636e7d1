"""The shapes of requests and answers about rollouts, see `hub.api.schemas`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fleet.protocol.assignment import VariantPolicy
from hub.api.reasons import NeededReason, Reason
from hub.api.schemas import ActionIn, CauseOut, Name, Schema

StageNumber = Annotated[
    Annotated[int, Field(ge=1, le=2**31)] | None,
    Field(description="The stage that is meant; if it is not its turn, nothing is done. Else send If-Match."),
]


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


class RetreatIn(Schema):
    """Devices that run a newer version of a model, and an older one to bring them back to."""

    model: Name
    to: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Null for the newest proven one below what they should run."
    )
    target: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None, description="Only devices that this target means."
    )


class RollbackIn(RetreatIn):
    """Bring devices that run a newer version of a model back to an older one."""

    reason: Reason = ""
    devices_per_minute: float | None = Field(
        default=None, description="Most orders in a minute; null for all."
    )


class RetreatOut(Schema):
    """What a rollback would do. ``leaves`` says how many of the devices should run each version now.

    ``warnings`` says why the version would not be found if it was not named.
    """

    model: str
    to: int
    devices: int
    leaves: dict[str, int]
    puts_aside: list[int]
    sentence: str
    warnings: list[str]


class PromoteIn(Schema):
    """An override needs a reason. ``stage`` is the one to end, counted from 1."""

    reason: NeededReason
    stage: StageNumber = None


class ApproveIn(ActionIn):
    """``stage`` is the one to let begin, counted from 1."""

    stage: StageNumber = None


class AbortIn(ActionIn):
    """Stop a rollout; keep what was installed, or bring it back."""

    roll_back: bool = False


class DeploymentOut(Schema):
    """One device's part in a rollout.

    ``ordered_at_s`` is null while it waits for its order; ``due_at_s`` is when its time runs out, or when it
    may be tried again; ``tries`` counts its tries before this one, and is 0 if the first sufficed.
    """

    device_id: str
    stage: int
    previous_version: int | None
    state: str
    since_at_s: float
    ordered_at_s: float | None
    due_at_s: float | None
    tries: int
    cause: CauseOut | None
    restore_state: str | None
    restore_cause: CauseOut | None


class StageOut(Schema):
    """One stage of a rollout.

    ``devices`` are without those that another rollout took, or that were canceled before the stage began;
    ``canceled`` are all whose way forward was called off. ``waiting`` devices have no order yet, ``open``
    ones have not ended, ``heard`` ones sent telemetry that counts. ``approval`` says whether the stage asks
    for a second person.
    """

    name: str
    devices: int
    canceled: int
    waiting: int
    succeeded: int
    open: int
    failed: int
    heard: int
    verdict: str | None
    approval: bool
    approved_by: str | None
    started_at_s: float | None
    bake_started_at_s: float | None
    ended_at_s: float | None
    minimum_bake_s: float
    maximum_bake_s: float


class RolloutOut(Schema):
    """A rollout. ``decisions`` is what its ``ETag`` holds; ``revision`` rises with every change.

    ``counts`` are of the way forward. Of the ways back ``open_restores`` have not ended, ``restored`` devices
    run again what they ran before, and ``unrestored`` do not.
    """

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
    revoked: bool
    awaits_approval_since_s: float | None
    revision: int
    decisions: int
    devices: int
    created_at_s: float
    ended_at_s: float | None
    counts: dict[str, int]
    open_restores: int
    restored: int
    unrestored: int


class ApprovalOut(Schema):
    """That a second person let a stage begin."""

    stage: int
    by: str
    reason: str
    at_s: float


class MetricVerdictOut(Schema):
    """What the gate says of one metric, and its e-values of harm and of safety."""

    metric: str
    outcome: str
    sentence: str
    harm: float
    safety: float
    needed: float


class RolloutDetailOut(RolloutOut):
    """A rollout with its plan and the gate's latest verdict, metric by metric.

    ``warnings`` tell, as of when it was created, which stages are not likely to pass, and why.
    ``movers`` created and started it and promoted stages: they cannot approve of one.
    """

    plan: dict[str, Any]
    warnings: list[str]
    movers: list[str]
    approvals: list[ApprovalOut]
    metrics: list[MetricVerdictOut]


class ExampleOut(Schema):
    """A device, and what is to be said of it alone."""

    device_id: str
    detail: str


class GroupOut(Schema):
    """Devices that share a reason; the first few are named."""

    reason: str
    code: str
    devices: int
    said: str
    examples: list[ExampleOut]


class ChoiceOut(Schema):
    """A command that an operator can give, and what it does."""

    command: str
    effect: str


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


class ExplanationOut(Schema):
    """Why a rollout is where it is.

    Of the first ``looked_at`` of the devices ``under_way`` it is known whether they are offline, held or in
    quarantine; the others are told by their state alone.
    """

    number: int
    status: str
    why: str
    since_s: float
    verdict: str
    verdict_stage: int | None
    goes_on: list[str]
    warnings: list[str]
    held_up_by: list[GroupOut]
    not_following: list[GroupOut]
    looked_at: int
    under_way: int
    overrides: list[HistoryOut]
    choices: list[ChoiceOut]
    decisions: int
