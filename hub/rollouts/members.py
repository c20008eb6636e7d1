"""Whom a rollout reaches, and what it asks of them: the plan's target, its stages' cohorts, its strata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fleet.cohorts import OF_DEVICES, grouping
from fleet.protocol.errors import InvalidPlan, InvalidTarget
from fleet.rollout.plans.plan import Membership, Plan
from fleet.rollout.plans.refusals import refused_target
from fleet.targets.parser import parse_target
from hub.query.devices import Searches, SearchStore, check_names
from hub.store.rows import DeviceRow


def members_of(
    store: SearchStore, find: Searches, plan: Plan | None, devices: Sequence[str] | None
) -> list[DeviceRow]:
    """Return the devices that a rollout would reach, whatever they run.

    Args:
        store: Knows the devices.
        find: Searches them.
        plan: Its target says which; None for the default plan, which has none.
        devices: Names them in place of a target; None for the target's, or all.

    Raises:
        NotFound: One of the named devices does not exist.
        InvalidPlan: The target asks for what nobody has, or devices are named besides.
    """
    target = plan.target if plan is not None else None
    if devices is not None:
        if target is not None:
            raise InvalidPlan(
                "target: devices are named besides; either says whom the rollout reaches.", field="target"
            )
        if plan is not None and plan.membership is Membership.CONTINUOUS:
            raise InvalidPlan(
                "membership: no device can come to match where devices are named.", field="membership"
            )
        known = store.devices_named(devices)
        return [known.get(device_id) or store.device(device_id) for device_id in devices]
    try:
        return list(find(target).devices())
    except InvalidTarget as error:
        raise refused_target("target", error) from error


def check_attributes(store: SearchStore, plan: Plan, group_by: Iterable[str]) -> None:
    """Check that cohorts and strata ask for attributes that some device has.

    Raises:
        InvalidPlan: One asks for what nobody has.
    """
    for index, stage in enumerate(plan.stages):
        if stage.cohort is not None:
            try:
                check_names(store, parse_target(stage.cohort))
            except InvalidTarget as error:
                raise refused_target(f"stages[{index}].cohort", error) from error
    if plan.stratify_by:
        known = {*store.attribute_names(), *OF_DEVICES, *group_by}
        for index, name in enumerate(plan.stratify_by):
            if name not in known:
                raise InvalidPlan(
                    f"stratify_by: no device has the attribute {name!r:.80}.", field=f"stratify_by[{index}]"
                )


def stage_cohorts(find: Searches, plan: Plan) -> dict[int, set[str]]:
    """Return, by the place of each stage that names its cohort, the devices that match it."""
    return {
        index: {row.device_id for row in find(stage.cohort).devices()}
        for index, stage in enumerate(plan.stages)
        if stage.cohort is not None
    }


def strata_of(members: Iterable[DeviceRow], plan: Plan, group_by: Iterable[str]) -> dict[str, str]:
    """Return the stratum of each device, such as ``hardware=pi4, site=lyon``.

    Args:
        members: The devices.
        plan: Says which attributes; where it does not, all that the hub groups devices by.
        group_by: The hub's setting.
    """
    names = grouping(group_by) if plan.stratify_by is None else plan.stratify_by
    return {row.device_id: _stratum(names, row) for row in members}


def _stratum(names: Iterable[str], row: DeviceRow) -> str:
    said: Mapping[str, str] = {
        "hardware": row.capabilities.hardware,
        "architecture": row.capabilities.architecture,
        **row.attributes,
    }
    return ", ".join(f"{name}={said[name]}" for name in names if said.get(name))
