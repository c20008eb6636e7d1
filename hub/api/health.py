"""Routes: how the fleet is, by what one likes, and its drift alarms with what the affected devices share."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from msgspec.structs import asdict

from fleet.cohorts import grouping
from fleet.drift.fleet_alarms import FleetAlarm
from fleet.health import HealthStatus, ModelHealth
from fleet.protocol.errors import InvalidInput, NotFound
from hub.api.auth import Viewer
from hub.api.health_schemas import (
    AlarmOut,
    GroupOut,
    GroupsOut,
    HealthOut,
    ModelHealthOut,
    SharedTraitOut,
    UnwellOut,
)
from hub.api.paging import Limit
from hub.api.schemas import Name, Page
from hub.api.services import Hub, HubServices
from hub.health import alarms_of
from hub.query.devices import check_model
from hub.store.state_rows import GroupCount, Groups

router = APIRouter(tags=["health"])

MOST_GROUPS = 100
MOST_NAMED = 100
"""Devices named in one answer that is not a page."""
BY_STATE, BY_VERSION = "state", "version"
By = Annotated[
    str | None,
    Query(max_length=64, description="`state`, `version`, or an attribute of `group_by`."),
]
ModelName = Annotated[Name | None, Query(description="Only devices that run this model, or should.")]


@router.get("/fleet/health")
def health(
    hub: Hub, _: Viewer, by: By = None, model: ModelName = None, after: str = "", limit: Limit = 100
) -> HealthOut:
    """Return how the fleet is: devices by health and by version, and those that are not well."""
    waiting = hub.states.before_answer()
    fleet = hub.store.fleet_health()
    models = [each for each in fleet.models if model in {None, each.model}]
    if model is not None and not models and not hub.store.versions(model, limit=1):
        raise NotFound(
            f"There is no model {model!r:.80}.", remedy="`muster model list` shows those there are."
        )
    by_status = fleet.by_status if model is None else _by_status(hub.store.grouped_by_status(model=model))
    unwell = hub.store.unwell(model=model, after=after, limit=limit)
    devices = sum(by_status.values())
    return HealthOut(
        devices=devices,
        online=devices - by_status.get(HealthStatus.OFFLINE, 0),
        by_health={status.value: by_status.get(status, 0) for status in HealthStatus},
        groups=None if by is None else _groups(hub, by, model),
        models=[_model(hub, each) for each in models],
        unwell=[
            UnwellOut(device_id=each.device_id, health=each.status.value, reasons=list(each.reasons))
            for each in unwell
        ],
        next=unwell[-1].device_id if len(unwell) == limit else None,
        waiting=waiting,
        refused_messages=hub.store.count_dead_letters(),
    )


@router.get("/drift/alarms")
def alarms(hub: Hub, _: Viewer, model: ModelName = None) -> Page[AlarmOut]:
    """Return the drift alarms by model and feature, each with what the devices that alarm share."""
    hub.states.before_answer()
    found = alarms_of(hub.store, model)
    if model is not None and not found:
        check_model(hub.store, model)  # an empty answer to a slip of the pen would say that all is well
    return Page(items=[_alarm(alarm) for alarm in found])


def _groups(hub: HubServices, by: str, model: str | None) -> GroupsOut:
    attributes = grouping(hub.settings.group_by)
    if by == BY_STATE:
        groups = hub.store.grouped_by_status(model=model)
    elif by == BY_VERSION:
        groups = hub.store.grouped_by_version(model=model, limit=MOST_GROUPS)
    elif by in attributes:
        groups = hub.store.grouped_by_trait(by, model=model, limit=MOST_GROUPS)
    else:
        raise InvalidInput(
            f"Devices are not grouped by {by!r:.80}.",
            remedy=f"Use {', '.join((BY_STATE, BY_VERSION, *attributes))}; more by the setting `group_by`.",
        )
    return GroupsOut(
        by=by,
        items=[_group(group) for group in groups.groups],
        others=_group(groups.others) if groups.others else None,
        values=groups.values,
    )


def _group(group: GroupCount) -> GroupOut:
    by_health = {
        status.value: group.by_status[status] for status in HealthStatus if status in group.by_status
    }
    return GroupOut(value=group.value, devices=group.devices, by_health=by_health)


def _by_status(groups: Groups) -> dict[HealthStatus, int]:
    return {status: number for group in groups.groups for status, number in group.by_status.items()}


def _model(hub: HubServices, model: ModelHealth) -> ModelHealthOut:
    return ModelHealthOut(
        model=model.model,
        devices=model.devices,
        as_desired=model.as_desired,
        by_version=model.by_version,
        error_share=model.error_share,
        drifting=hub.store.drifting_devices(model.model, limit=MOST_NAMED) if model.drifting else [],
        drifting_devices=model.drifting,
    )


def _alarm(alarm: FleetAlarm) -> AlarmOut:
    return AlarmOut(
        **{
            **asdict(alarm),
            "versions": list(alarm.versions),
            "devices": list(alarm.devices[:MOST_NAMED]),
            "shared": [SharedTraitOut(**asdict(each), sentence=each.sentence) for each in alarm.shared],
        },
        device_count=len(alarm.devices),
        sentence=alarm.sentence,
    )
