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

A stage may name its devices by a target instead (``cohort``), and is then all devices that match and were not
reached before. Every field is described at its type below; the JSON Schema is made from there, see
`fleet.rollout.plans.schema`. What only fields together can be wrong about is refused by
`fleet.rollout.plans.checks`, and an unknown field is an error rather than a wish ignored.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.maintenance import Maintenance, Mode

MAX_PLAN_SIZE_BYTES = 64 * 1024
MAX_STAGES = 32
MAX_METRICS = 32
MAX_RETRIES = 10
MAX_DEVICES = 10**7
MAX_PRIORITY = 1000
MAX_STRATIFYING = 4
MAX_NAME_LENGTH = 80
MAX_DURATION_S = 366 * 86400.0
LONGEST_BUDGET_US = 3600e6
"""An hour: the last bucket of the latency histogram, see `fleet.protocol.latency`."""
MOST_HELD_BACK = 0.25
"""Largest share of the devices in a stage that is judged by installs alone."""
LARGE_FLEET = 100
"""From so many devices on, the default plan begins with `FIRST_OF_MANY`."""
FIRST_OF_MANY = 10
"""So many devices have groups of which any may be left out, see `fleet.rollout.gates.groups`."""

ALL = "all"


class Metric(StrEnum):
    """What a gate compares, see `fleet.rollout.gates.windows`."""

    INFERENCE_ERRORS = "inference_errors"
    LABEL_ERRORS = "label_errors"
    UNSURE = "unsure"
    SLOW = "slow"
    LATENCY = "latency"
    OUTPUT_DRIFT = "output_drift"
    CONFIDENCE_DRIFT = "confidence_drift"
    INPUT_DRIFT = "input_drift"
    SHADOW_DISAGREEMENT = "shadow_disagreement"
    MEMORY = "memory"


class OnInconclusive(StrEnum):
    """What happens when a stage's longest bake ends without a verdict. It never promotes."""

    PAUSE = "pause"
    ROLL_BACK = "roll_back"


class OnFail(StrEnum):
    """What happens when the gate says FAIL, or more deployments fail than it allows. It never promotes."""

    ROLL_BACK = "roll_back"
    PAUSE = "pause"


class JudgedBy(StrEnum):
    """What ends a stage.

    GATE: proof that the version is no worse. INSTALLS: that enough devices run it, and no proof of harm; for
    a last stage whose devices were the control group until then.
    """

    GATE = "gate"
    INSTALLS = "installs"


class Membership(StrEnum):
    """Whom a rollout reaches.

    SNAPSHOT: the devices that match when it is started. CONTINUOUS: also those that come to match later.
    """

    SNAPSHOT = "snapshot"
    CONTINUOUS = "continuous"


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One step of the rollout. It has either ``devices`` or ``cohort``.

    Attributes:
        devices: Cumulative: a count, a share such as ``"50%"``, or ``"all"``.
        cohort: A target: all devices of the rollout that match and that no earlier stage reached.
        minimum_devices: Fewest of its devices that must run the version before the stage can pass.
        minimum_bake_s: The stage cannot pass sooner than this after its last deployment ended.
        maximum_bake_s: Without a verdict this long after its last deployment ended, the rollout does as
            ``on_inconclusive`` says.
        approval: Whether the stage begins only when a second person has approved of it.
        judged_by: ``gate``, or ``installs`` for a last stage of devices that were held back as controls.
        name: What people call the stage; empty for its number.
    """

    devices: int | str | None = None
    cohort: str | None = None
    minimum_devices: int = 1
    minimum_bake_s: float
    maximum_bake_s: float
    approval: bool = False
    judged_by: JudgedBy = JudgedBy.GATE
    name: str = ""


class MetricGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one metric is judged, see `fleet.rollout.gates.gate`.

    Attributes:
        metric: What is compared.
        margin: How much greater the canaries' share may be than the controls', 0 to 1; for ``output_drift``
            how much greater or smaller the share of any class, for ``confidence_drift`` and ``input_drift``
            the share below any edge of a bin. Not for ``latency``, ``memory`` and ``shadow_disagreement``.
        limit: Greatest share of the canaries, 0 to 1; used where there is no control to compare with, which
            for ``shadow_disagreement`` is always. Not for ``latency``, ``memory`` and drift.
        minimum_samples: Fewest samples of each arm before there is a verdict.
        budget_us: For ``slow``: a longer duration is slow. For ``latency``: greatest quantile of the
            canaries, used where there is no control.
        threshold: For ``unsure``, and only there: a lower confidence is unsure. One of
            `fleet.drift.features.CONFIDENCE_EDGES`.
        quantile: For ``latency`` and ``memory``, and only there: which quantile is compared, between 0 and 1.
        ratio: Likewise: how many times the controls' quantile the canaries' may be, above 1.
        budget_bytes: For ``memory``, and only there: greatest quantile of the canaries, used where there is
            no control.
        feature: For ``input_drift``, and only there: which input is compared, such as ``input.0``. Its bins
            must be the same in both versions. Several inputs are several metrics.
    """

    metric: Metric
    margin: float = 0.0
    limit: float = 0.0
    minimum_samples: int = 100
    budget_us: float | None = None
    threshold: float | None = None
    quantile: float | None = None
    ratio: float | None = None
    budget_bytes: float | None = None
    feature: str = ""


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every stage must pass.

    Attributes:
        error_budget: Greatest probability that any verdict of the whole rollout is wrong, see
            `fleet.rollout.gates.gate` for how it is split.
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

    @property
    def waits_s(self) -> float:
        """How long a device waits before its tries in all, if it needs each of them."""
        return self.backoff_s * (2.0**self.attempts - 1.0)


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole rollout.

    Attributes:
        stages: In order.
        gate: What every stage must pass.
        deployment_timeout_s: A deployment that has not ended this long after its order is TIMED_OUT.
        on_inconclusive: What happens when a stage's longest bake ends without a verdict.
        variant_policy: Which of the variants that a device can run it runs, see `fleet.variants`.
        shadow_s: How long each device compares the version with its active one before the version may
            answer; 0 for not at all. A deployment has so much more time.
        devices_per_minute: Most orders forward in a minute; None for no limit.
        concurrency: Most orders forward that are open at once; None for no limit.
        retries: Of deployments that failed on their way.
        rollback_devices_per_minute: Most orders in a minute that lead back a rollout; None for no limit.
        target: Which devices the rollout reaches, an expression of `fleet.targets`; None for those that
            are named when it is created, or all.
        membership: Whether devices that come to match later are reached too.
        maintenance: When devices swap the version in, by the clock on their own wall; None for any time.
        mode: Whom devices ask before they do.
        priority: Of rollouts of one model that reach the same device, the one with the higher has it.
        stratify_by: Attributes whose every value an early stage has to see; None for the hub's own.
        on_fail: What happens when the gate says FAIL, or more deployments fail than it allows.
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
    target: str | None = None
    membership: Membership = Membership.SNAPSHOT
    maintenance: Maintenance | None = None
    mode: Mode = Mode.SOFT
    priority: int = 0
    stratify_by: tuple[str, ...] | None = None
    on_fail: OnFail = OnFail.ROLL_BACK


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
    """Return the plan used where an operator gives none: one device, a tenth, half, all but a twentieth, all.

    The last twentieth is the control group until the others have passed. From `LARGE_FLEET` devices on, the
    first stage has `FIRST_OF_MANY`, and a tenth follows where it is twice as many: one device alone proves
    nothing of devices that differ, and would be believed if it lies.

    Args:
        device_count: How many devices the rollout has; stages that would add nobody are left out.
    """
    first, tenth = 1, -(-device_count // 10)
    if device_count >= LARGE_FLEET:
        first = FIRST_OF_MANY
        tenth = tenth if tenth >= 2 * first else 0
    steps: list[tuple[int | str, int]] = [
        (first, first),
        ("10%", tenth),
        ("50%", -(-device_count // 2)),
        ("95%", -(-device_count * 19 // 20)),
    ]
    kept = [d for i, (d, n) in enumerate(steps) if all(n > m for _, m in steps[:i])]
    stages = [Stage(devices=d, minimum_bake_s=600.0, maximum_bake_s=6 * 3600.0) for d in kept]
    if steps[-1][1] < device_count:
        last = Stage(devices=ALL, minimum_bake_s=0.0, maximum_bake_s=3600.0, judged_by=JudgedBy.INSTALLS)
        return Plan(stages=(*stages, last), gate=default_gate())
    stages[-1] = msgspec.structs.replace(stages[-1], devices=ALL)  # so few: a twentieth is nobody
    return Plan(stages=tuple(stages), gate=default_gate())


def rollback_plan(*, deployment_timeout_s: float = 3600.0, maximum_failed_share: float = 0.0) -> Plan:
    """Return the plan of an operator's rollback: everybody at once, judged on installs alone."""
    return Plan(
        stages=(Stage(devices=ALL, minimum_bake_s=0.0, maximum_bake_s=0.0),),
        gate=Gate(maximum_failed_share=maximum_failed_share),
        deployment_timeout_s=deployment_timeout_s,
    )
