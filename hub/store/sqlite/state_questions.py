"""Questions of how devices are, answered from the counts and from narrow indexes: nothing reads every device.

Only `traits` does, which is asked of an alarm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from fleet.health import NO_VERSION, FleetHealth, HealthStatus, ModelHealth
from hub.store.rows import DriftRow
from hub.store.sqlite.database import Part
from hub.store.sqlite.state_counts import EVERY_DEVICE, EVERY_MODEL, NONE
from hub.store.state_rows import DeviceState, GroupCount, Groups


class _Capabilities(msgspec.Struct):
    agent_version: str
    architecture: str
    runtimes: dict[str, str]
    hardware: str = ""


_REASONS = msgspec.json.Decoder(tuple[str, ...])
_FEATURES = msgspec.json.Decoder(tuple[str, ...])
_CAPABILITIES = msgspec.json.Decoder(_Capabilities)
_DRIFT = msgspec.msgpack.Decoder(DriftRow)
_ATTRIBUTES = msgspec.json.Decoder(dict[str, str])

_FOLD = """
WITH grouped AS ({grouped}),
     sizes AS (SELECT value, sum(devices) AS size FROM grouped GROUP BY value),
     largest AS (SELECT value FROM sizes ORDER BY size DESC, value LIMIT :limit)
SELECT named, iif(named, value, '') AS shown, status, sum(devices),
       (SELECT count(*) FROM sizes)
FROM (SELECT *, value IN (SELECT value FROM largest) AS named FROM grouped) GROUP BY named, shown, status
"""
"""Groups beyond the largest are added up here: they may be as many as devices. No value is an empty one."""


class SqliteStateQuestions(Part):
    """Implements the asking in `hub.store.protocols.StateStore`."""

    def fleet_health(self) -> FleetHealth:
        """Return the counts of the whole fleet."""
        with self._database.reading() as connection:
            devices = connection.execute(
                "SELECT status, devices FROM trait_counts WHERE attribute = ? AND model = ?",
                (EVERY_DEVICE, EVERY_MODEL),
            ).fetchall()
            models = connection.execute(
                "SELECT model, version, sum(devices), sum(devices * as_desired), sum(predictions),"
                " sum(errors), sum(devices * drifting) FROM version_counts GROUP BY model, version"
            ).fetchall()
        by_model: defaultdict[str, list[Sequence[int]]] = defaultdict(list)
        for model, *counts in models:
            by_model[model].append(counts)
        return FleetHealth(
            devices=sum(number for _, number in devices),
            by_status={status: dict(devices).get(status.value, 0) for status in HealthStatus},
            models=tuple(_model_health(model, rows) for model, rows in sorted(by_model.items())),
        )

    def grouped_by_trait(self, attribute: str, *, model: str | None = None, limit: int = 100) -> Groups:
        """Return the devices by the value of an attribute."""
        grouped = (
            "SELECT value, status, devices FROM trait_counts WHERE attribute = :attribute AND model = :model"
        )
        return self._groups(grouped, limit, attribute=attribute, model=model or EVERY_MODEL)

    def grouped_by_status(self, *, model: str | None = None) -> Groups:
        """Return the devices by health."""
        grouped = (
            "SELECT status AS value, status, devices FROM trait_counts"
            " WHERE attribute = :attribute AND model = :model"
        )
        return self._groups(grouped, len(HealthStatus), attribute=EVERY_DEVICE, model=model or EVERY_MODEL)

    def grouped_by_version(self, *, model: str | None = None, limit: int = 100) -> Groups:
        """Return the devices by the version that they report."""
        grouped = (
            f"SELECT model || ' ' || CASE version WHEN {NONE} THEN '{NO_VERSION}' ELSE version END AS value,"  # noqa: S608 - constants
            " status, sum(devices) AS devices FROM version_counts WHERE :model IS NULL OR model = :model"
            " GROUP BY value, status"
        )
        return self._groups(grouped, limit, model=model)

    def device_states(self, device_ids: Sequence[str]) -> dict[str, DeviceState]:
        """Return the states of devices, by id."""
        rows = self._database.rows(
            "SELECT device_id, status, reasons FROM device_states"
            " WHERE device_id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(device_ids).decode(),),
        )
        return {row["device_id"]: _state(row) for row in rows}

    def unwell(self, *, model: str | None = None, after: str = "", limit: int = 100) -> list[DeviceState]:
        """Return devices that are UNHEALTHY or OFFLINE, by id."""
        rows = self._database.rows(
            "SELECT device_id, status, reasons FROM device_states INDEXED BY unwell_devices"
            " WHERE status IN ('UNHEALTHY', 'OFFLINE') AND device_id > ? AND (? IS NULL OR EXISTS"
            " (SELECT 1 FROM model_states m WHERE m.device_id = device_states.device_id AND m.model = ?))"
            " ORDER BY device_id LIMIT ?",
            (after, model, model, limit),
        )
        return [_state(row) for row in rows]

    def drifting_devices(self, model: str, *, limit: int = 100) -> list[str]:
        """Return devices whose drift alarm is raised, by id."""
        rows = self._database.rows(
            "SELECT device_id FROM model_states WHERE drifting != '[]' AND model = ?"
            " ORDER BY device_id LIMIT ?",
            (model, limit),
        )
        return [row["device_id"] for row in rows]

    def drifting_features(self, device_ids: Sequence[str]) -> dict[str, frozenset[str]]:
        """Return the features that the drift alarms of devices name, by id."""
        rows = self._database.rows(
            "SELECT device_id, drifting FROM model_states WHERE drifting != '[]'"
            " AND device_id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(device_ids).decode(),),
        )
        found: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
        for row in rows:
            found[row["device_id"]] |= frozenset(_FEATURES.decode(row["drifting"]))
        return dict(found)

    def alarming(self, *, model: str | None = None) -> list[DriftRow]:
        """Return the drift bookkeeping of devices whose alarm is raised for the version they run, by id."""
        rows = self._database.rows(
            "SELECT body FROM model_states JOIN drift USING (device_id, model, version)"
            " WHERE drifting != '[]' AND (? IS NULL OR model = ?) ORDER BY device_id, model",
            (model, model),
        )
        return [_DRIFT.decode(row["body"]) for row in rows]

    def traits(self, model: str) -> dict[str, dict[str, str]]:
        """Return what devices that run a model are, by id."""
        rows = self._database.rows(
            "SELECT d.device_id, d.attributes, d.capabilities, m.version, o.variant FROM model_states m"
            " JOIN devices d ON d.device_id = m.device_id"
            " LEFT JOIN desired o ON o.device_id = m.device_id AND o.model = m.model WHERE m.model = ?",
            (model,),
        )
        return {row["device_id"]: _traits(row) for row in rows}

    def _groups(self, grouped: str, limit: int, **parameters: str | None) -> Groups:
        with self._database.reading() as connection:
            rows = connection.execute(
                _FOLD.format(grouped=grouped), {"limit": limit, **parameters}
            ).fetchall()
        by_status: defaultdict[str | None, dict[HealthStatus, int]] = defaultdict(dict)
        for named, value, status, devices, _ in rows:
            by_status[value if named else None][HealthStatus(status)] = devices
        others = by_status.pop(None, None)
        groups = [_group(value, counted) for value, counted in by_status.items() if value is not None]
        return Groups(
            groups=tuple(sorted(groups, key=lambda group: (-group.devices, group.value or ""))),
            others=_group("", others) if others else None,
            values=rows[0][-1] if rows else 0,
        )


def _group(value: str, by_status: dict[HealthStatus, int]) -> GroupCount:
    return GroupCount(value or None, sum(by_status.values()), by_status)


def _model_health(model: str, rows: Sequence[Sequence[int]]) -> ModelHealth:
    by_version = {NO_VERSION if row[0] == NONE else str(row[0]): row[1] for row in rows}
    devices, as_desired, predictions, errors, drifting = (sum(row[n] for row in rows) for n in range(1, 6))
    return ModelHealth(model, devices, by_version, as_desired, predictions, errors, drifting)


def _state(row: dict[str, Any]) -> DeviceState:
    return DeviceState(row["device_id"], HealthStatus(row["status"]), _REASONS.decode(row["reasons"]))


def _traits(row: dict[str, Any]) -> dict[str, str]:
    said = _CAPABILITIES.decode(row["capabilities"])
    found = {
        "hardware": said.hardware,
        "architecture": said.architecture,
        "agent": said.agent_version,
        **{f"runtime.{name}": release for name, release in said.runtimes.items()},
        "version": NO_VERSION if row["version"] is None else str(row["version"]),
        "variant": row["variant"] or "",
        **_ATTRIBUTES.decode(row["attributes"]),
    }
    return {name: value for name, value in found.items() if value}
