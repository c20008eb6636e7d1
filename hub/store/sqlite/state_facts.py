"""What health rests on, read from where it is kept: for the devices of one batch, a statement a table.

Of the structured columns only what is judged is decoded; the rest is skipped.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from fleet.cohorts import cohorts_of
from fleet.health import DeviceFacts, ModelOnDevice
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause

Pair = tuple[str, str]
"""A device and a model."""


class Known(NamedTuple):
    """What is known of one device.

    Attributes:
        facts: What is judged.
        cohorts: Which cohorts it belongs to.
        silent: Whether it counts as silent already.
    """

    facts: DeviceFacts
    cohorts: dict[str, str]
    silent: bool


class _Running(msgspec.Struct):
    model: str
    version: int | None


class _Report(msgspec.Struct):
    models: tuple[_Running, ...]


class _Capabilities(msgspec.Struct):
    architecture: str
    hardware: str = ""


class _Totals(msgspec.Struct, tag="window"):
    predictions: int = 0
    errors: int = 0


class _Alarm(msgspec.Struct):
    raised: tuple[str, ...] = ()


class _Drift(msgspec.Struct):
    alarm: _Alarm


_REPORT = msgspec.json.Decoder(_Report)
_CAPABILITIES = msgspec.json.Decoder(_Capabilities)
_ATTRIBUTES = msgspec.json.Decoder(dict[str, str])
_CAUSE = msgspec.json.Decoder(Cause)
_TOTALS = msgspec.msgpack.Decoder(_Totals)
_DRIFT = msgspec.msgpack.Decoder(_Drift)


def read_known(
    connection: sqlite3.Connection, device_ids: Sequence[str], group_by: Iterable[str] = ()
) -> list[Known]:
    """Return what is known of devices, by id; unknown ones are left out.

    Args:
        connection: Inside a transaction, if the parts are to belong together.
        device_ids: Which.
        group_by: The hub's setting, see `fleet.cohorts`.
    """
    batch = _Batch(connection, device_ids)
    return [batch.known(row, tuple(group_by)) for row in batch.devices]


class _Batch:
    """The rows of some devices."""

    def __init__(self, connection: sqlite3.Connection, device_ids: Sequence[str]) -> None:
        wanted = msgspec.json.encode(device_ids).decode()

        def rows(columns: str, table: str) -> list[Any]:
            sql = f"SELECT {columns} FROM {table} WHERE device_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
            return connection.execute(sql, (wanted,)).fetchall()

        self.devices = sorted(
            rows("device_id, online, last_seen_at_s, attributes, capabilities, reported, silent", "devices")
        )
        self._quarantined: Mapping[str, float] = dict(rows("device_id, until_s", "quarantines"))
        self._desired: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for device_id, model, version in rows("device_id, model, version", "desired"):
            self._desired[device_id][model] = version
        self._deployments: dict[Pair, tuple[DeploymentState, Cause | None]] = {
            (device_id, model): (DeploymentState(state), _CAUSE.decode(cause) if cause else None)
            for device_id, model, state, cause in rows("device_id, model, state, cause", "last_deployments")
        }
        self._totals = {
            key: _TOTALS.decode(body)
            for *key_, body in rows(f"{_KEY}, body", "totals")
            for key in [tuple(key_)]
        }
        self._drift = {
            key: _DRIFT.decode(body)
            for *key_, body in rows(f"{_KEY}, body", "drift")
            for key in [tuple(key_)]
        }

    def known(self, row: Sequence[Any], group_by: Sequence[str]) -> Known:
        """Return what is known of the device of a row."""
        device_id, online, last_seen_s, attributes, capabilities, reported, silent = row
        runs = {each.model: each.version for each in _REPORT.decode(reported).models} if reported else {}
        wanted = self._desired.get(device_id, {})
        names = {*wanted, *(name for name, version in runs.items() if version is not None)}
        facts = DeviceFacts(
            device_id,
            bool(online),
            last_seen_s,
            tuple(self._model(device_id, name, wanted.get(name), runs.get(name)) for name in sorted(names)),
            self._quarantined.get(device_id),
        )
        said = _CAPABILITIES.decode(capabilities)
        cohorts = cohorts_of(
            _ATTRIBUTES.decode(attributes),
            hardware=said.hardware,
            architecture=said.architecture,
            group_by=group_by,
        )
        return Known(facts, cohorts, bool(silent))

    def _model(self, device_id: str, model: str, desired: int | None, reported: int | None) -> ModelOnDevice:
        state, cause = self._deployments.get((device_id, model), (None, None))
        key = (device_id, model, reported or 0)
        totals, drift = self._totals.get(key), self._drift.get(key)
        return ModelOnDevice(
            model=model,
            desired_version=desired,
            reported_version=reported,
            deployment=state,
            cause=cause,
            predictions=totals.predictions if totals else 0,
            errors=totals.errors if totals else 0,
            drifting=drift.alarm.raised if drift else (),
        )


_KEY = "device_id, model, version"
