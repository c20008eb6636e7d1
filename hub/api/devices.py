"""Routes: devices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from msgspec.structs import asdict

from fleet.health import device_health
from fleet.protocol.wishes import THOUSAND
from hub.api.auth import Viewer
from hub.api.exports import EXPORTS, Form, Wanted, exported
from hub.api.measurement_schemas import MeasurementOut
from hub.api.paging import Limit
from hub.api.schemas import (
    ActionOut,
    DeviceDetailOut,
    DeviceOut,
    DiagnosticsOut,
    HoldOut,
    ModelStateOut,
    OrderOut,
    Page,
    QuarantineOut,
    WishesOut,
)
from hub.api.search import search_of
from hub.api.services import Hub, HubServices
from hub.api.turns import SEARCH_IN_TURN
from hub.query.devices import Search
from hub.query.tables import Column, Kind, Table
from hub.store.rows import DeviceRow, DeviceWishes

_EXPORTED_AT_ONCE = 1000
DEVICE_COLUMNS = [
    Column("device_id"),
    Column("health"),
    Column("reasons"),
    Column("online", Kind.FLAG),
    Column("runs"),
    Column("tags"),
    Column("attributes"),
    Column("hardware"),
    Column("architecture"),
    Column("agent_version"),
    Column("runtimes"),
    Column("enrolled_at_s", Kind.TIME),
    Column("last_seen_at_s", Kind.TIME),
]

router = APIRouter(tags=["devices"])


@router.get("/devices", response_model=Page[DeviceOut], responses=EXPORTS, dependencies=[SEARCH_IN_TURN])
def list_devices(
    hub: Hub, _: Viewer, *, form: Wanted, where: str | None = None, after: str = "", limit: Limit = 100
) -> Page[DeviceOut] | StreamingResponse:
    """List devices, or those that a target means, by id; as CSV or Parquet all of them."""
    search = search_of(hub, where)
    if form is not Form.JSON:
        return exported(Table(DEVICE_COLUMNS, _exported(hub, search)), form, "devices")
    rows = list(islice(search.devices(after=after, wanted=limit), limit))
    items = [DeviceOut(**fields) for fields in _fields(hub, rows)]
    return Page(items=items, next=rows[-1].device_id if len(rows) == limit else None)


@router.get("/devices/{device_id}")
def show_device(device_id: str, hub: Hub, _: Viewer) -> DeviceDetailOut:
    """Show one device: what it runs and what it should run."""
    row = hub.store.device(device_id)
    desired = [
        OrderOut(
            model=order.model,
            version=order.version,
            variant=order.variant,
            alternatives=list(order.alternatives),
            variant_policy=order.policy,
            deployment_id=order.deployment_id,
        )
        for order in hub.store.desired(device_id).orders
    ]
    return DeviceDetailOut(
        **_fields(hub, [row])[0],
        desired=desired,
        wishes=wishes_out(hub.store.wishes(device_id)),
        quarantine=_quarantine(hub, device_id),
        diagnostics=[DiagnosticsOut(**asdict(sent)) for sent in hub.store.diagnostics(device_id)],
        actions=[ActionOut(**asdict(action)) for action in hub.store.actions(device_id)],
    )


@router.get("/devices/{device_id}/measurements")
def measurements(device_id: str, hub: Hub, _: Viewer) -> list[MeasurementOut]:
    """Return what a device measured to choose among variants, by model and version."""
    hub.store.device(device_id)
    return [MeasurementOut.of(row.measurement) for row in hub.store.measurements(device_id=device_id)]


def wishes_out(wishes: DeviceWishes) -> WishesOut:
    """Return wishes as the API shows them."""
    held = HoldOut(**asdict(wishes.held)) if wishes.held else None
    epsilon = None if wishes.count_noise is None else wishes.count_noise / THOUSAND
    return WishesOut(
        log_level=wishes.log_level, held=held, diagnostics=wishes.diagnostics, count_noise_epsilon=epsilon
    )


def _fields(hub: HubServices, rows: list[DeviceRow]) -> list[dict[str, Any]]:
    if not rows:
        return []
    now_s = time.time()
    tags = hub.store.tags_of(row.device_id for row in rows)
    known = hub.store.facts([row.device_id for row in rows])
    judged = [device_health(facts, now_s, hub.health_policy) for facts in known]
    return [
        {
            "device_id": row.device_id,
            "attributes": row.attributes,
            "tags": list(tags.get(row.device_id, ())),
            "architecture": row.capabilities.architecture,
            "hardware": row.capabilities.hardware,
            "agent_version": row.capabilities.agent_version,
            "runtimes": row.capabilities.runtimes,
            "enrolled_at_s": row.enrolled_at_s,
            "last_seen_at_s": row.last_seen_at_s,
            "online": row.online,
            "health": health.status.value,
            "reasons": list(health.reasons),
            "sequence": row.sequence,
            "accepted_sequence": row.accepted_sequence,
            "models": _models(row),
        }
        for row, health in zip(rows, judged, strict=True)
    ]


def _exported(hub: HubServices, search: Search) -> Iterator[dict[str, Any]]:
    """Yield the devices of a search as rows of a table."""
    found = search.devices()
    while rows := list(islice(found, _EXPORTED_AT_ONCE)):
        for fields in _fields(hub, rows):
            runs = [f"{m.model} {m.version}" for m in fields["models"] if m.version is not None]
            yield {**fields, "runs": runs}


def _models(row: DeviceRow) -> list[ModelStateOut]:
    return [
        ModelStateOut(
            model=state.model,
            version=state.version,
            variant=state.variant,
            phase=state.phase,
            deployment_id=state.deployment_id,
            waiting_for=state.waiting_for,
        )
        for state in (row.reported.models if row.reported else ())
    ]


def _quarantine(hub: HubServices, device_id: str) -> QuarantineOut | None:
    now_s = time.time()
    rows = [row for row in hub.store.quarantines(device_id=device_id) if row.until_s > now_s]
    return QuarantineOut(since_s=rows[0].since_s, until_s=rows[0].until_s) if rows else None
