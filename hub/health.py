"""Gathering what is known of devices, for `fleet.health` to judge."""

from __future__ import annotations

from typing import Protocol

from fleet.health import DeviceFacts, ModelOnDevice
from fleet.protocol.records import DeploymentReport
from hub.store.protocols import DeviceStore, DriftStore, RecordStore
from hub.store.rows import DeviceRow

PAGE = 1000


class HealthStore(DeviceStore, RecordStore, DriftStore, Protocol):
    """What health needs of the store."""


def fleet_facts(store: HealthStore) -> list[DeviceFacts]:
    """Return what is known of every device."""
    rows: list[DeviceRow] = []
    while page := store.devices(after=rows[-1].device_id if rows else "", limit=PAGE):
        rows += page
    return device_facts(store, rows)


def device_facts(store: HealthStore, rows: list[DeviceRow]) -> list[DeviceFacts]:
    """Return what is known of some devices.

    Args:
        store: Knows it.
        rows: The devices.
    """
    only = rows[0].device_id if len(rows) == 1 else None
    desired = store.all_desired()
    reports: dict[tuple[str, str], DeploymentReport] = {}
    for record in store.last_reports(device_id=only):
        if isinstance(record.body, DeploymentReport):
            reports[record.device_id, record.body.model] = record.body
    totals = {
        (total.device_id, total.model, total.version): total.totals for total in store.totals(device_id=only)
    }
    drifting = {
        (row.device_id, row.model, row.version): row.alarm.raised for row in store.drift(device_id=only)
    }
    facts: list[DeviceFacts] = []
    for row in rows:
        wanted = {order.model: order.version for order in desired.get(row.device_id, ())}
        runs = {state.model: state.version for state in row.reported.models} if row.reported else {}
        models: list[ModelOnDevice] = []
        for model in sorted({*wanted, *(name for name, version in runs.items() if version is not None)}):
            report = reports.get((row.device_id, model))
            key = (row.device_id, model, runs.get(model) or 0)
            total = totals.get(key)
            models.append(
                ModelOnDevice(
                    model=model,
                    desired_version=wanted.get(model),
                    reported_version=runs.get(model),
                    deployment=report.state if report else None,
                    cause=report.cause if report else None,
                    predictions=total.predictions if total else 0,
                    errors=total.errors if total else 0,
                    drifting=drifting.get(key, ()),
                )
            )
        facts.append(DeviceFacts(row.device_id, row.online, row.last_seen_at_s, tuple(models)))
    return facts
