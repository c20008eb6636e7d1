"""The plan of a rollout: its stages and the gate that each must pass, as an operator writes it.

::

    { "stages": [ {"devices": 1,     "minimum_bake_s": 600, "maximum_bake_s": 7200},
                  {"devices": "50%", "minimum_bake_s": 600, "maximum_bake_s": 7200},
                  {"devices": "all", "minimum_bake_s": 600, "maximum_bake_s": 7200} ],
      "gate": { "error_budget": 0.01, "maximum_failed_share": 0.05,
                "metrics": [ {"metric": "label_errors", "margin": 0.1, "limit": 0.3} ] },
      "deployment_timeout_s": 3600, "on_inconclusive": "pause", "variant_policy": "first" }

``devices`` is cumulative: how many of the rollout's devices have been sent the version once the stage has
begun. A share is rounded up to whole devices. Every stage adds at least one device, the last reaches all.

Nothing fails open: what cannot be understood is refused when it is written, with the stage or field and the
reason, and an unknown field is an error rather than a wish ignored.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from fleet.drift.features import CONFIDENCE_EDGES
from fleet.protocol.assignment import MAX_SHADOW_S, VariantPolicy
from fleet.protocol.errors import InvalidPlan

MAX_PLAN_SIZE_BYTES = 64 * 1024
MAX_STAGES = 32
MAX_RETRIES = 10
MAX_DEVICES = 10**7
MAX_DURATION_S = 366 * 86400.0
LONGEST_BUDGET_US = 3600e6
"""An hour: the last bucket of the latency histogram, see `fleet.protocol.latency`."""

ALL = "all"


class Metric(StrEnum):
    """What a gate compares; each is a share of something bad, see `fleet.rollout.evidence`."""

    INFERENCE_ERRORS = "inference_errors"
    LABEL_ERRORS = "label_errors"
    UNSURE = "unsure"
    SLOW = "slow"


class OnInconclusive(StrEnum):
    """What happens when a stage's longest bake ends without a verdict. It never promotes."""

    PAUSE = "pause"
    ROLL_BACK = "roll_back"


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of the rollout.

    Attributes:
        devices: Cumulative: a count, a share such as ``"50%"``, or ``"all"``.
        minimum_bake_s: The stage cannot pass sooner than this after its last deployment ended.
        maximum_bake_s: Without a verdict this long after its last deployment ended, the rollout does as
            ``on_inconclusive`` says.
    """

    devices: int | str
    minimum_bake_s: float
    maximum_bake_s: float


class MetricGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one metric is judged, see `fleet.rollout.gates`.

    Attributes:
        metric: What is compared.
        margin: How much greater the canaries' share may be than the controls', 0 to 1.
        limit: Greatest share of the canaries, 0 to 1; used where there is no control to compare with.
        minimum_samples: Fewest samples of each arm before there is a verdict.
        budget_us: For ``slow``, and only there: a longer duration is slow.
        threshold: For ``unsure``, and only there: a lower confidence is unsure. One of
            `fleet.drift.features.CONFIDENCE_EDGES`.
    """

    metric: Metric
    margin: float
    limit: float
    minimum_samples: int = 100
    budget_us: float | None = None
    threshold: float | None = None


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every stage must pass.

    Attributes:
        error_budget: Greatest probability that any verdict of the whole rollout is wrong, see
            `fleet.rollout.gates`.
        maximum_failed_share: Greatest share of a stage's devices whose deployment may fail, 0 to below 1.
        metrics: How telemetry is judged.
    """

    error_budget: float = 0.01
    maximum_failed_share: float = 0.0
    metrics: tuple[MetricGate, ...] = ()


class Retries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a deployment that ran out of time, or was lost on its way, is tried again.

    Attributes:
        attempts: How many more times at most; 0 for not at all.
        backoff_s: How long after the first failure; each later one waits twice as long.
    """

    attempts: int = 0
    backoff_s: float = 60.0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole rollout.

    Attributes:
        stages: In order; see the head of this file.
        gate: What every stage must pass.
        deployment_timeout_s: A deployment that has not ended this long after its order is TIMED_OUT.
        on_inconclusive: See `OnInconclusive`.
        variant_policy: Which of the variants that a device can run it runs, see `fleet.variants`.
        shadow_s: How long each device compares the version with its active one before the version may
            answer; 0 for not at all. A deployment has so much more time.
        devices_per_minute: Most orders forward in a minute; None for no limit.
        concurrency: Most orders forward that are open at once; None for no limit.
        retries: Of deployments that failed on their way.
        rollback_devices_per_minute: Most orders in a minute that lead back a rollout; None for no limit.
    """

    stages: tuple[Stage, ...]
    gate: Gate
    deployment_timeout_s: float = 3600.0
    on_inconclusive: OnInconclusive = OnInconclusive.PAUSE
    variant_policy: VariantPolicy = VariantPolicy.FIRST
    shadow_s: int = 0
    devices_per_minute: float | None = None
    concurrency: int | None = None
    retries: Retries = Retries()
    rollback_devices_per_minute: float | None = None


_DECODER = msgspec.json.Decoder(Plan)  # made once: two threads that were the first to use a type crash


def decode_plan(data: bytes) -> Plan:
    """Return the plan in JSON bytes, checked.

    Raises:
        InvalidPlan: It cannot be understood, could not be carried out, or not be judged.
    """
    if len(data) > MAX_PLAN_SIZE_BYTES:
        raise InvalidPlan(f"The plan has {len(data)} bytes; {MAX_PLAN_SIZE_BYTES} are allowed.")
    try:
        plan = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPlan(f"The plan cannot be understood: {error}.") from error
    check_plan(plan)
    return plan


def encode_plan(plan: Plan) -> bytes:
    """Return the plan as JSON."""
    return msgspec.json.encode(plan)


def check_plan(plan: Plan) -> None:
    """Check everything that does not depend on how many devices there are.

    Raises:
        InvalidPlan: The message names the stage or field and the reason.
    """
    if not 1 <= len(plan.stages) <= MAX_STAGES:
        raise InvalidPlan(f"The plan has {len(plan.stages)} stages; it needs 1 to {MAX_STAGES}.")
    for number, stage in enumerate(plan.stages, start=1):
        _check_stage(f"Stage {number}", stage)
    _check_rising(plan.stages)
    _check_number("deployment_timeout_s", plan.deployment_timeout_s, 1.0, MAX_DURATION_S)
    _check_number("shadow_s", plan.shadow_s, 0, MAX_SHADOW_S)
    _check_pace(plan)
    _check_gate(plan.gate)


def share_of(devices: str) -> float | None:
    """Return the share, above 0 up to 1, that a text such as ``"50%"`` or ``"all"`` names; None if none."""
    if devices == ALL:
        return 1.0
    number = devices.removesuffix("%")
    if number == devices or not number.isascii() or not number.replace(".", "", 1).isdigit():
        return None
    share = float(number) / 100.0
    return share if 0.0 < share <= 1.0 else None


def default_gate() -> Gate:
    """Return the gate of rollouts that do not bring their own."""
    return Gate(
        error_budget=0.01,
        maximum_failed_share=0.05,
        metrics=(
            MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.02, limit=0.02),
            MetricGate(metric=Metric.UNSURE, margin=0.2, limit=0.5, threshold=0.5),
        ),
    )


def default_plan(device_count: int) -> Plan:
    """Return the plan used where an operator gives none: one device, a tenth, half, all.

    Args:
        device_count: How many devices the rollout has; stages that would add nobody are left out.
    """
    steps: list[tuple[int | str, int]] = [
        (1, 1),
        ("10%", -(-device_count // 10)),
        ("50%", -(-device_count // 2)),
        (ALL, device_count),
    ]
    kept = [d for i, (d, n) in enumerate(steps) if all(n > m for _, m in steps[:i])] or [ALL]
    if kept[-1] != ALL:  # a fleet of one: the single device is all of it
        kept[-1] = ALL
    return Plan(
        stages=tuple(Stage(devices=d, minimum_bake_s=600.0, maximum_bake_s=6 * 3600.0) for d in kept),
        gate=default_gate(),
    )


def rollback_plan(*, deployment_timeout_s: float = 3600.0, maximum_failed_share: float = 0.0) -> Plan:
    """Return the plan of an operator's rollback: everybody at once, judged on installs alone."""
    return Plan(
        stages=(Stage(devices=ALL, minimum_bake_s=0.0, maximum_bake_s=0.0),),
        gate=Gate(maximum_failed_share=maximum_failed_share),
        deployment_timeout_s=deployment_timeout_s,
    )


def _check_stage(where: str, stage: Stage) -> None:
    if isinstance(stage.devices, bool) or not isinstance(stage.devices, (int, str)):
        raise InvalidPlan(f"{where}: devices must be a count, a share or 'all'.")
    if isinstance(stage.devices, int) and stage.devices < 1:
        raise InvalidPlan(f"{where}: {stage.devices} devices would be an empty stage.")
    if isinstance(stage.devices, str) and share_of(stage.devices) is None:
        raise InvalidPlan(
            f"{where}: devices {stage.devices!r:.40} is neither a share above 0% and up to 100% nor 'all'."
        )
    _check_number(f"{where}: minimum_bake_s", stage.minimum_bake_s, 0.0, MAX_DURATION_S)
    _check_number(f"{where}: maximum_bake_s", stage.maximum_bake_s, 0.0, MAX_DURATION_S)
    if stage.maximum_bake_s < stage.minimum_bake_s:
        raise InvalidPlan(
            f"{where}: maximum_bake_s {stage.maximum_bake_s:g} is below minimum_bake_s "
            f"{stage.minimum_bake_s:g}."
        )


def _check_rising(stages: tuple[Stage, ...]) -> None:
    """Counts rise among counts and shares among shares; `targeting.cohort_ends` compares the two."""
    highest: dict[type, float] = {}
    for number, stage in enumerate(stages, start=1):
        kind = type(stage.devices)
        reach = float(stage.devices) if isinstance(stage.devices, int) else share_of(stage.devices) or 0.0
        if reach <= highest.get(kind, 0.0):
            raise InvalidPlan(
                f"Stage {number}: {stage.devices} adds nobody to an earlier stage.",
                remedy="The number of devices is cumulative and must rise from stage to stage.",
            )
        highest[kind] = reach
    last = stages[-1].devices
    if isinstance(last, str) and share_of(last) != 1.0:
        raise InvalidPlan(f"Stage {len(stages)}: the last stage must reach all devices, not {last}.")


def _check_pace(plan: Plan) -> None:
    for name in ("devices_per_minute", "rollback_devices_per_minute"):
        rate = getattr(plan, name)
        if rate is not None:
            _check_number(name, rate, 1 / 60, MAX_DEVICES)
    if plan.concurrency is not None:
        _check_number("concurrency", plan.concurrency, 1, MAX_DEVICES)
    _check_number("retries.attempts", plan.retries.attempts, 0, MAX_RETRIES)
    _check_number("retries.backoff_s", plan.retries.backoff_s, 0.0, MAX_DURATION_S)


def _check_gate(gate: Gate) -> None:
    _check_number("gate.error_budget", gate.error_budget, 1e-9, 0.5)
    _check_number("gate.maximum_failed_share", gate.maximum_failed_share, 0.0, 1.0)
    if gate.maximum_failed_share == 1.0:
        raise InvalidPlan("gate.maximum_failed_share: 1 would let every deployment fail.")
    for metric in gate.metrics:
        _check_metric(f"gate.metrics, {metric.metric.value}", metric)
    if len({metric.metric for metric in gate.metrics}) != len(gate.metrics):
        raise InvalidPlan("gate.metrics: a metric is judged twice.")


def _check_metric(where: str, gate: MetricGate) -> None:
    _check_number(f"{where}: margin", gate.margin, 0.0, 1.0, above=True, below=True)
    _check_number(f"{where}: limit", gate.limit, 0.0, 1.0, above=True, below=True)
    if not 1 <= gate.minimum_samples <= 10**9:
        raise InvalidPlan(f"{where}: minimum_samples {gate.minimum_samples} is not from 1 to 10^9.")
    if (gate.budget_us is not None) != (gate.metric is Metric.SLOW):
        raise InvalidPlan(f"{where}: budget_us belongs to 'slow', and 'slow' needs it.")
    if gate.budget_us is not None:
        _check_number(f"{where}: budget_us", gate.budget_us, 1.0, LONGEST_BUDGET_US)
    if (gate.threshold is not None) != (gate.metric is Metric.UNSURE):
        raise InvalidPlan(f"{where}: threshold belongs to 'unsure', and 'unsure' needs it.")
    if gate.threshold is not None and gate.threshold not in CONFIDENCE_EDGES[1:]:
        raise InvalidPlan(
            f"{where}: threshold {gate.threshold:g} is not one of the edges at which confidence is counted.",
            remedy="Use a multiple of 0.05 from 0.05 to 1.",
        )


def _check_number(
    where: str, value: float, low: float, high: float, *, above: bool = False, below: bool = False
) -> None:
    inside = math.isfinite(value) and low <= value <= high
    if not inside or (above and value == low) or (below and value == high):
        left, right = ("above" if above else "from"), ("below" if below else "to")
        raise InvalidPlan(f"{where}: {value:g} is not a number {left} {low:g} {right} {high:g}.")
