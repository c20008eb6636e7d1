"""State rows: devices are judged when something changed, and their rows and counts change together."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import sqlite_utils

from fleet.cohorts import grouping
from fleet.health import DeviceFacts, DeviceHealth, HealthStatus, ModelOnDevice, device_health
from fleet.protocol.errors import Unavailable
from fleet.protocol.records import DeploymentReport
from hub.store.rows import IncomingRecord
from hub.store.sqlite.database import Part
from hub.store.sqlite.state_counts import NONE, Difference, VersionKey
from hub.store.sqlite.state_facts import Known, read_known
from hub.store.state_rows import StateRules

_RULES = msgspec.json.Decoder(StateRules)
_TRAITS = msgspec.json.Decoder(dict[str, str])
_ENCODER = msgspec.json.Encoder()
_MARK_ALL = "INSERT OR IGNORE INTO marked_devices (device_id) SELECT device_id FROM devices"
_MARKED = "SELECT device_id FROM marked_devices LIMIT ?"
_ENDED = "SELECT device_id FROM device_states WHERE holds_until_s < ? LIMIT ?"


class _DeviceRow(NamedTuple):
    """A row of device_states."""

    device_id: str
    status: str
    reasons: str
    traits: str
    holds_until_s: float | None


class _ModelRow(NamedTuple):
    """A row of model_states."""

    device_id: str
    model: str
    version: int | None
    desired_version: int | None
    deployment: str | None
    predictions: int
    errors: int
    drifting: str

    def key(self, status: str) -> VersionKey:
        """Where it counts on a device of a status."""
        return VersionKey(
            self.model,
            NONE if self.version is None else self.version,
            status,
            int(self.version == self.desired_version),
            int(self.drifting != "[]"),
        )


_DEVICE_COLUMNS = ", ".join(_DeviceRow._fields)
_MODEL_COLUMNS = ", ".join(_ModelRow._fields)


class SqliteStates(Part):
    """Implements the keeping in `hub.store.protocols.StateStore`; the asking is in `state_questions`."""

    def adopt_rules(self, rules: StateRules) -> None:
        """Judge by these rules from now on, see `hub.store.protocols.StateStore.adopt_rules`."""
        text = _ENCODER.encode(rules).decode()
        with self._database.writing() as db:
            if db.execute("SELECT 1 FROM state_rules WHERE rules = ?", [text]).fetchone():
                return
            db.execute("INSERT OR REPLACE INTO state_rules (id, rules) VALUES (1, ?)", [text])
            db.execute(_MARK_ALL)

    def refresh_states(self, *, now_s: float, limit: int = 500) -> int:
        """Judge what changed, see `hub.store.protocols.StateStore.refresh_states`."""
        with (
            self._database.reading() as connection
        ):  # nearly always there is nothing: the writer is left alone
            if not _to_judge(connection, now_s, 1):
                return 0
        with self._database.writing() as db:
            device_ids = _to_judge(db.conn, now_s, limit)
            _refresh(db.conn, device_ids, now_s)
        return len(device_ids)

    def waiting(self) -> int:
        """Return how many devices are marked."""
        row = self._database.row("SELECT count(*) AS number FROM marked_devices")
        return int(row["number"]) if row else 0

    def facts(self, device_ids: Sequence[str]) -> list[DeviceFacts]:
        """Return what is known of devices now, by id."""
        with self._database.reading() as connection:
            return [known.facts for known in read_known(connection, device_ids)]


def keep_deployments(db: sqlite_utils.Database, records: Sequence[IncomingRecord]) -> None:
    """Keep the last deployment report of each device and model, in the caller's transaction."""
    db.conn.executemany(
        "INSERT OR REPLACE INTO last_deployments (device_id, model, state, cause) VALUES (?, ?, ?, ?)",
        [
            (
                record.device_id,
                report.model,
                report.state.value,
                _ENCODER.encode(report.cause).decode() if report.cause else None,
            )
            for record in records
            if isinstance(report := record.head.body, DeploymentReport)
        ],
    )


def _to_judge(connection: sqlite3.Connection, now_s: float, limit: int) -> list[str]:
    marked = [row[0] for row in connection.execute(_MARKED, (limit,))]
    if len(marked) == limit:
        return marked
    ended = [row[0] for row in connection.execute(_ENDED, (now_s, limit - len(marked)))]
    return list(dict.fromkeys(marked + ended))


def _refresh(connection: sqlite3.Connection, device_ids: Sequence[str], now_s: float) -> None:
    """Judge devices and change what is kept of them, in the caller's transaction."""
    rules = _rules(connection)
    wanted = _ENCODER.encode(device_ids).decode()
    known = read_known(connection, device_ids, rules.group_by)
    judged = [device_health(each.facts, now_s, rules.policy) for each in known]
    _keep_silence(connection, known, judged)
    devices = [
        _device_row(health, {name: each.cohorts.get(name, "") for name in grouping(rules.group_by)})
        for each, health in zip(known, judged, strict=True)
    ]
    models = {each.facts.device_id: _model_rows(each.facts) for each in known}
    _change(connection, wanted, devices, models)
    connection.execute(
        "DELETE FROM marked_devices WHERE device_id IN (SELECT value FROM json_each(?))", (wanted,)
    )


def _rules(connection: sqlite3.Connection) -> StateRules:
    row = connection.execute("SELECT rules FROM state_rules").fetchone()
    if row is None:
        raise Unavailable("There are no rules yet by which devices are judged.")
    return _RULES.decode(row[0])


def _change(
    connection: sqlite3.Connection,
    wanted: str,
    devices: Sequence[_DeviceRow],
    models: dict[str, list[_ModelRow]],
) -> None:
    """Put rows in place of those before, and count the difference."""
    before = {row.device_id: row for row in map(_DeviceRow._make, _select(connection, "device", wanted))}
    models_before: defaultdict[str, list[_ModelRow]] = defaultdict(list)
    for row in map(_ModelRow._make, _select(connection, "model", wanted)):
        models_before[row.device_id].append(row)
    difference, changed, changed_models, gone = Difference(), [], [], []
    for device in devices:
        old, had, has = (
            before.get(device.device_id),
            models_before[device.device_id],
            models[device.device_id],
        )
        if old == device and had == has:
            continue
        _count(difference, old, had, device, has)
        changed += [device] if old != device else []
        changed_models += [row for row in has if row not in had]
        gone += [(row.device_id, row.model) for row in had if row.model not in {each.model for each in has}]
    difference.write(connection)
    connection.executemany(
        f"INSERT OR REPLACE INTO device_states ({_DEVICE_COLUMNS}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608 - constant
        changed,
    )
    connection.executemany("DELETE FROM model_states WHERE device_id = ? AND model = ?", gone)
    connection.executemany(
        f"INSERT OR REPLACE INTO model_states ({_MODEL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constant
        changed_models,
    )


def _count(
    difference: Difference,
    old: _DeviceRow | None,
    had: Sequence[_ModelRow],
    new: _DeviceRow,
    has: Sequence[_ModelRow],
) -> None:
    """Count a device that changed. Mostly only what it answered did, which no count of traits depends on."""
    named_before, named = [row.model for row in had], [row.model for row in has]
    if old is None or (old.traits, old.status, named_before) != (new.traits, new.status, named):
        if old is not None:
            difference.device(_TRAITS.decode(old.traits), named_before, old.status, -1)
        difference.device(_TRAITS.decode(new.traits), named, new.status, 1)
    if old is not None:
        for row in had:
            difference.version(row.key(old.status), row.predictions, row.errors, -1)
    for row in has:
        difference.version(row.key(new.status), row.predictions, row.errors, 1)


def _select(connection: sqlite3.Connection, what: str, wanted: str) -> sqlite3.Cursor:
    columns = _DEVICE_COLUMNS if what == "device" else _MODEL_COLUMNS
    order = "device_id" if what == "device" else "device_id, model"
    return connection.execute(
        f"SELECT {columns} FROM {what}_states WHERE device_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - our names
        f" ORDER BY {order}",
        (wanted,),
    )


def _keep_silence(
    connection: sqlite3.Connection, known: Sequence[Known], judged: Sequence[DeviceHealth]
) -> None:
    """Note which devices count as silent, so that their next message marks them, see the migration."""
    silent = [
        (int(is_silent), each.facts.device_id)
        for each, health in zip(known, judged, strict=True)
        if (is_silent := each.facts.connected and health.status is HealthStatus.OFFLINE) != each.silent
    ]
    connection.executemany("UPDATE devices SET silent = ? WHERE device_id = ?", silent)


def _device_row(health: DeviceHealth, traits: dict[str, str]) -> _DeviceRow:
    return _DeviceRow(
        health.device_id,
        health.status.value,
        _ENCODER.encode(health.reasons).decode(),
        _ENCODER.encode(traits).decode(),
        health.holds_until_s,
    )


def _model_rows(facts: DeviceFacts) -> list[_ModelRow]:
    return [_model_row(facts.device_id, model) for model in facts.models]


def _model_row(device_id: str, model: ModelOnDevice) -> _ModelRow:
    return _ModelRow(
        device_id,
        model.model,
        model.reported_version,
        model.desired_version,
        model.deployment.value if model.deployment else None,
        model.predictions,
        model.errors,
        _ENCODER.encode(model.drifting).decode(),
    )
