"""What is refused of a plan when it is written, whatever the devices; the rest: `fleet.rollout.plans.fit`.

Each refusal names the stage or field and the reason, and carries the field's place for whoever read the plan
from a file. Nothing fails open: a plan that passes can be carried out and judged.
"""

from __future__ import annotations

from fleet.protocol.assignment import MAX_SHADOW_S
from fleet.protocol.errors import InvalidPlan, InvalidTarget
from fleet.protocol.maintenance import Mode, longest_closed_s, minute_of
from fleet.rollout.plans.gate_checks import check_gate
from fleet.rollout.plans.plan import (
    MAX_DEVICES,
    MAX_DURATION_S,
    MAX_NAME_LENGTH,
    MAX_PRIORITY,
    MAX_RETRIES,
    MAX_STAGES,
    MAX_STRATIFYING,
    JudgedBy,
    Metric,
    Plan,
    Retries,
    Stage,
    share_of,
)
from fleet.rollout.plans.refusals import check_number, refused_target
from fleet.sentences import number
from fleet.targets.parser import parse_target


def check_plan(plan: Plan) -> None:
    """Check everything that does not depend on the devices that there are.

    Raises:
        InvalidPlan: The message names the stage or field and the reason.
    """
    if not 1 <= len(plan.stages) <= MAX_STAGES:
        raise InvalidPlan(
            f"The plan has {len(plan.stages)} stages; it needs 1 to {MAX_STAGES}.", field="stages"
        )
    for index, stage in enumerate(plan.stages):
        _check_stage(index, stage)
    _check_rising(plan.stages)
    _check_names(plan.stages)
    _check_judging(plan.stages)
    check_target("target", plan.target)
    check_number("deployment_timeout_s", plan.deployment_timeout_s, 1.0, MAX_DURATION_S)
    check_number("shadow_s", plan.shadow_s, 0, MAX_SHADOW_S)
    check_number("priority", plan.priority, -MAX_PRIORITY, MAX_PRIORITY)
    _check_pace(plan)
    _check_stratifying(plan)
    _check_maintenance(plan)
    check_gate(plan.gate)
    if plan.shadow_s == 0 and any(m.metric is Metric.SHADOW_DISAGREEMENT for m in plan.gate.metrics):
        raise InvalidPlan(
            "gate.metrics, shadow_disagreement: without shadow_s there is no shadow to disagree in.",
            field="shadow_s",
        )


def check_target(field: str, target: str | None) -> None:
    """Check that a target can be understood.

    Raises:
        InvalidPlan: It cannot; the message has the position inside the target.
    """
    if target is None:
        return
    try:
        parse_target(target)
    except InvalidTarget as error:
        raise refused_target(field, error) from error


def _check_stage(index: int, stage: Stage) -> None:
    where, path = f"Stage {index + 1}", f"stages[{index}]"
    if (stage.devices is None) == (stage.cohort is None):
        raise InvalidPlan(f"{where}: it needs either devices or a cohort.", field=path)
    if stage.devices is not None:
        _check_devices(where, f"{path}.devices", stage.devices)
    check_target(f"{path}.cohort", stage.cohort)
    check_number(
        f"{path}.minimum_devices", stage.minimum_devices, 1, MAX_DEVICES, where=f"{where}: minimum_devices"
    )
    for name in ("minimum_bake_s", "maximum_bake_s"):
        value = getattr(stage, name)
        check_number(f"{path}.{name}", value, 0.0, MAX_DURATION_S, where=f"{where}: {name}")
    if stage.maximum_bake_s < stage.minimum_bake_s:
        raise InvalidPlan(
            f"{where}: maximum_bake_s {number(stage.maximum_bake_s)} is below minimum_bake_s "
            f"{number(stage.minimum_bake_s)}.",
            field=f"{path}.maximum_bake_s",
        )


def _check_devices(where: str, path: str, devices: int | str) -> None:
    if isinstance(devices, bool) or not isinstance(devices, (int, str)):
        raise InvalidPlan(f"{where}: devices must be a count, a share or 'all'.", field=path)
    if isinstance(devices, int) and devices < 1:
        raise InvalidPlan(f"{where}: {number(devices)} devices would be an empty stage.", field=path)
    if isinstance(devices, int) and devices > MAX_DEVICES:
        raise InvalidPlan(f"{where}: no rollout has more than {MAX_DEVICES:,} devices.", field=path)
    if isinstance(devices, str) and share_of(devices) is None:
        raise InvalidPlan(
            f"{where}: devices {devices!r:.40} is neither a share above 0% and up to 100% nor 'all'.",
            field=path,
        )


def _check_rising(stages: tuple[Stage, ...]) -> None:
    """Counts rise among counts and shares among shares; `targeting.cohort_ends` compares the two."""
    highest: dict[type, float] = {}
    for index, stage in enumerate(stages):
        if stage.devices is None:
            continue
        kind = type(stage.devices)
        reach = float(stage.devices) if isinstance(stage.devices, int) else share_of(stage.devices) or 0.0
        if reach <= highest.get(kind, 0.0):
            raise InvalidPlan(
                f"Stage {index + 1}: {stage.devices} adds nobody to an earlier stage.",
                remedy="The number of devices is cumulative and must rise from stage to stage.",
                field=f"stages[{index}].devices",
            )
        highest[kind] = reach
    last = stages[-1].devices
    if isinstance(last, str) and share_of(last) != 1.0:
        raise InvalidPlan(
            f"Stage {len(stages)}: the last stage must reach all devices, not {last}.",
            field=f"stages[{len(stages) - 1}].devices",
        )


def _check_names(stages: tuple[Stage, ...]) -> None:
    seen: set[str] = set()
    for index, stage in enumerate(stages):
        path, where = f"stages[{index}].name", f"Stage {index + 1}"
        if len(stage.name) > MAX_NAME_LENGTH or not stage.name.isprintable():
            raise InvalidPlan(
                f"{where}: name is not one line of at most {MAX_NAME_LENGTH} characters.", field=path
            )
        if stage.name and stage.name in seen:
            raise InvalidPlan(f"{where}: an earlier stage is called {stage.name!r} too.", field=path)
        seen.add(stage.name)


def _check_judging(stages: tuple[Stage, ...]) -> None:
    """Only what follows a proof of safety may go without one."""
    for index, stage in enumerate(stages):
        if stage.judged_by is JudgedBy.INSTALLS and (index == 0 or index < len(stages) - 1):
            raise InvalidPlan(
                f"Stage {index + 1}: only the last of several stages can be judged by installs alone.",
                remedy="It brings the version to the devices that were the controls of the stages before.",
                field=f"stages[{index}].judged_by",
            )


def _check_pace(plan: Plan) -> None:
    for name in ("devices_per_minute", "rollback_devices_per_minute"):
        rate = getattr(plan, name)
        if rate is not None:
            check_number(name, rate, 1 / 60, MAX_DEVICES)
    if plan.concurrency is not None:
        check_number("concurrency", plan.concurrency, 1, MAX_DEVICES)
    _check_retries(plan.retries)


def _check_retries(retries: Retries) -> None:
    """A stage cannot end while a device waits for its next try: all waits together have an end too."""
    check_number("retries.attempts", retries.attempts, 0, MAX_RETRIES)
    check_number("retries.backoff_s", retries.backoff_s, 0.0, MAX_DURATION_S)
    waits_s = retries.waits_s
    if waits_s > MAX_DURATION_S:
        raise InvalidPlan(
            f"retries.backoff_s: each wait is twice as long as the one before, so {retries.attempts} more "
            f"tries wait for {number(waits_s)} s in all; "
            f"no stage waits for more than {number(MAX_DURATION_S)}.",
            remedy="Try less often, or sooner.",
            field="retries.backoff_s",
        )


def _check_stratifying(plan: Plan) -> None:
    attributes = plan.stratify_by or ()
    if len(attributes) > MAX_STRATIFYING or len(set(attributes)) != len(attributes):
        raise InvalidPlan(
            f"stratify_by: at most {MAX_STRATIFYING} attributes, each once.", field="stratify_by"
        )
    for index, name in enumerate(attributes):
        if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
            raise InvalidPlan(
                f"stratify_by: {name!r:.40} is no attribute's name.", field=f"stratify_by[{index}]"
            )


def _check_maintenance(plan: Plan) -> None:
    window = plan.maintenance
    if window is None:
        return
    if plan.mode is Mode.FORCED:
        raise InvalidPlan(
            "mode: forced devices wait for no maintenance window.",
            remedy="Leave maintenance out, or let mode be soft.",
            field="mode",
        )
    if not window.days:
        raise InvalidPlan("maintenance.days: without a day it never opens.", field="maintenance.days")
    if len(set(window.days)) != len(window.days):
        raise InvalidPlan("maintenance.days: a day is named twice.", field="maintenance.days")
    for name, time in (("from", window.from_), ("to", window.to)):
        try:
            minute_of(time)
        except ValueError as error:
            raise InvalidPlan(f"maintenance.{name}: {error}.", field=f"maintenance.{name}") from error
    if window.from_ == "24:00":
        raise InvalidPlan("maintenance.from: 24:00 is 00:00 of the next day.", field="maintenance.from")
    if window.length_minutes == 0:
        raise InvalidPlan(
            "maintenance.to: it ends when it begins and so never opens.",
            remedy="A whole day is from 00:00 to 24:00.",
            field="maintenance.to",
        )
    closed_s = longest_closed_s(window)
    if plan.deployment_timeout_s <= closed_s:
        raise InvalidPlan(
            f"deployment_timeout_s: {number(plan.deployment_timeout_s)} s are over before the maintenance "
            f"window opens, which stays closed for up to {number(closed_s)} s, changes to and from summer "
            "time included.",
            remedy="Give deployments more time, or open the window more often, or for more than two hours.",
            field="deployment_timeout_s",
        )
