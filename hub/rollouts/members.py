"""Whom a rollout reaches, and what it asks of them: the plan's target, its stages' cohorts, its strata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from fleet.cohorts import OF_DEVICES, grouping
from fleet.protocol.errors import InvalidPlan, InvalidTarget
from fleet.rollout.claims import priority_of
from fleet.rollout.events import Joiner
from fleet.rollout.plans.plan import Membership, Plan
from fleet.rollout.plans.refusals import refused_target
from fleet.rollout.state.rollout import Rollout, Status
from fleet.targets.parser import parse_target
from hub.query.devices import Searches, SearchStore, check_names
from hub.store.protocols import ClaimStore, RolloutStore
from hub.store.rows import DeviceRow


class JoinerStore(SearchStore, ClaimStore, RolloutStore, Protocol):
    """What it takes to know who joins."""


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


def joiners(
    store: JoinerStore, find: Searches, rollout: Rollout, group_by: Iterable[str]
) -> tuple[Joiner, ...]:
    """Return the devices that have come to match a rollout's target, and that no other one has or takes in.

    Of two that a device comes to match, the one of the higher priority takes it in, and of equals the one of
    the lower number, whichever looks first.

    Args:
        store: Knows the devices and the other rollouts.
        find: Searches them.
        rollout: Its membership is continuous.
        group_by: The hub's setting.

    Raises:
        InvalidPlan: Its target asks for what nobody has any more.
    """
    plan = rollout.plan
    matching = members_of(store, find, plan, None)
    new = [row for row in matching if rollout.deployments.of_device(row.device_id) is None]
    elsewhere = store.claimed_by(rollout.model, [row.device_id for row in new])
    new = [row for row in new if row.device_id not in elsewhere]
    if not new:
        return ()
    running = store.desired_versions(rollout.model)
    for other in _before(store, rollout):
        taken = _matching(store, find, other)
        taken = {name for name in taken if running.get(name) != other.version}
        new = [row for row in new if row.device_id not in taken]
    strata = strata_of(new, plan, group_by)
    cohorts = stage_cohorts(find, plan)
    found = (
        Joiner(
            device_id=row.device_id,
            version=running.get(row.device_id),
            stratum=strata[row.device_id],
            matching=tuple(place for place, cohort in cohorts.items() if row.device_id in cohort),
        )
        for row in new
    )
    return tuple(joiner for joiner in found if joiner.version != rollout.version)


def _before(store: RolloutStore, rollout: Rollout) -> Iterator[Rollout]:
    """Yield the rollouts of the model that take devices in, and come before this one."""

    def rank(one: Rollout) -> tuple[float, int]:
        return -priority_of(one), one.number

    for other in (row.state for row in store.open_rollouts()):
        if other.model != rollout.model or rank(other) >= rank(rollout):
            continue
        is_open = other.status in {Status.RUNNING, Status.PAUSED} and not other.revoked
        if is_open and other.plan.membership is Membership.CONTINUOUS:
            yield other


def _matching(store: SearchStore, find: Searches, rollout: Rollout) -> set[str]:
    """Return the devices that match a rollout and are not of it."""
    try:
        matching = members_of(store, find, rollout.plan, None)
    except InvalidPlan:  # it is told when that one looks
        return set()
    return {row.device_id for row in matching if rollout.deployments.of_device(row.device_id) is None}


def _stratum(names: Iterable[str], row: DeviceRow) -> str:
    said: Mapping[str, str] = {
        "hardware": row.capabilities.hardware,
        "architecture": row.capabilities.architecture,
        **row.attributes,
    }
    return ", ".join(f"{name}={said[name]}" for name in names if said.get(name))
