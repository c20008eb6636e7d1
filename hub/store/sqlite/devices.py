"""The members of the fleet, what they report, and what they should run."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec
import sqlite_utils

from fleet.protocol.assignment import ModelOrder, VariantPolicy
from fleet.protocol.errors import Conflict, NotAuthenticated, NotFound
from fleet.protocol.maintenance import Maintenance, Mode
from fleet.protocol.messages import Capabilities, StateReport
from hub.store.intake_rows import Said
from hub.store.rows import Desired, DeviceChange, DeviceRow, NewDevice
from hub.store.sqlite.database import Part
from hub.store.sqlite.migrations import table
from hub.store.sqlite.samples import capture_of
from hub.store.sqlite.wishes import wishes_of

_NAMED = "(SELECT value FROM json_each(?))"
"""Devices given as `_list`: however many they are, the statement and its parameters stay the same."""
_WINDOW = msgspec.json.Decoder(Maintenance)
_ATTRIBUTES = msgspec.json.Decoder(dict[str, str])
_CAPABILITIES = msgspec.json.Decoder(Capabilities)
_REPORT = msgspec.json.Decoder(StateReport)


class SqliteDevices(Part):
    """Implements `hub.store.protocols.DeviceStore`."""

    def enrol(self, device: NewDevice, *, token_sha256: str, now_s: float) -> None:
        """Use up the token and add the device.

        Raises:
            NotAuthenticated: The token is unknown, used or expired.
            Conflict: The name is taken.
        """
        with self._database.writing() as db:
            used = db.execute(
                "UPDATE enrolment_tokens SET used_by = ?, used_at_s = ?"
                " WHERE secret_sha256 = ? AND used_by IS NULL AND expires_at_s > ?",
                [device.device_id, now_s, token_sha256, now_s],
            )
            if used.rowcount != 1:
                _enrol_again(db, device, token_sha256, now_s)
                return
            if db.execute("SELECT 1 FROM devices WHERE device_id = ?", [device.device_id]).fetchone():
                raise Conflict(
                    f"There is a device {device.device_id!r} already.", remedy="Enrol under another name."
                )
            table(db, "devices").insert(
                {
                    "device_id": device.device_id,
                    "password_hash": device.password_hash,
                    "attributes": _json(device.attributes),
                    "capabilities": _json(device.capabilities),
                    "enrolled_at_s": now_s,
                }
            )

    def device(self, device_id: str) -> DeviceRow:
        """Return a device; raises `NotFound`."""
        row = self._database.row("SELECT * FROM devices WHERE device_id = ?", (device_id,))
        if row is None:
            raise _no_device(device_id)
        return _device(row)

    def devices_named(self, device_ids: Iterable[str]) -> dict[str, DeviceRow]:
        """Return devices by id; those that there are not are left out."""
        rows = self._database.rows(
            f"SELECT * FROM devices WHERE device_id IN {_NAMED}",  # noqa: S608 - constant
            (_list(device_ids),),
        )
        return {row["device_id"]: _device(row) for row in rows}

    def devices(self, *, after: str = "", limit: int = 100) -> list[DeviceRow]:
        """Return devices by id."""
        rows = self._database.rows(
            "SELECT * FROM devices WHERE device_id > ? ORDER BY device_id LIMIT ?", (after, limit)
        )
        return [_device(row) for row in rows]

    def device_changes(self, *, after: int = 0, limit: int = 100) -> list[DeviceChange]:
        """Return the last change of what each device is, see `DeviceStore.device_changes`."""
        sql = "SELECT changed, device_id FROM devices WHERE changed > ? ORDER BY changed LIMIT ?"
        with self._database.reading() as connection:
            return [DeviceChange(*row) for row in connection.execute(sql, (after, limit))]

    def password_hashes(self) -> dict[str, str]:
        """Return every device's broker password hash."""
        with self._database.reading() as connection:
            return dict(connection.execute("SELECT device_id, password_hash FROM devices"))

    def count_throttled(self) -> int:
        """Return how many connected devices were throttled in the window that their boards told of last."""
        row = self._database.row(  # by an index of just those, see the migration m012
            "SELECT count(*) AS number FROM devices WHERE json_extract(reported, '$.board.throttled') > 0"
            " AND online"
        )
        return int(row["number"]) if row else 0

    def throttled_devices(self, *, limit: int) -> list[DeviceRow]:
        """Return those of them that are first by id."""
        rows = self._database.rows(
            "SELECT * FROM devices WHERE json_extract(reported, '$.board.throttled') > 0 AND online"
            " ORDER BY device_id LIMIT ?",
            (limit,),
        )
        return [_device(row) for row in rows]

    def desired(self, device_id: str) -> Desired:
        """Return what the device should run."""
        found = self.desired_of([device_id])
        if device_id not in found:
            raise _no_device(device_id)
        return found[device_id]

    def desired_of(self, device_ids: Iterable[str]) -> dict[str, Desired]:
        """Return what each of the devices should run; those that there are not are left out."""
        # One statement, so that orders, wishes and sequence number belong together.
        rows = self._database.rows(
            "SELECT d.device_id, d.sequence, o.model, o.version, o.manifest_sha256, o.variant,"  # noqa: S608 - constant
            " o.deployment_id, o.alternatives, o.policy, o.shadow_s, o.maintenance, o.mode,"
            " c.policy AS capture, w.log_level, w.held_by, w.held_reason, w.held_at_s, w.diagnostics,"
            " w.count_noise"
            " FROM devices d LEFT JOIN desired o ON o.device_id = d.device_id"
            " LEFT JOIN captures c ON c.device_id = d.device_id AND c.model = o.model"
            " LEFT JOIN wishes w ON w.device_id = d.device_id"
            f" WHERE d.device_id IN {_NAMED} ORDER BY d.device_id, o.model",
            (_list(device_ids),),
        )
        return {
            device_id: _desired(list(of_one)) for device_id, of_one in groupby(rows, itemgetter("device_id"))
        }

    def sequences(self, device_ids: Iterable[str]) -> dict[str, int]:
        """Return the number of each device's current assignment; those that there are not are left out."""
        rows = self._database.rows(
            f"SELECT device_id, sequence FROM devices WHERE device_id IN {_NAMED}",  # noqa: S608 - constant
            (_list(device_ids),),
        )
        return {row["device_id"]: row["sequence"] for row in rows}

    def desired_versions(self, model: str, device_ids: Iterable[str] | None = None) -> dict[str, int]:
        """Return the version of a model that devices should run, see `DeviceStore.desired_versions`."""
        sql = "SELECT device_id, version FROM desired WHERE model = ?"
        values = [model]
        if device_ids is not None:
            sql += f" AND device_id IN {_NAMED}"
            values.append(_list(device_ids))
        with self._database.reading() as connection:
            return dict(connection.execute(sql, values))

    def behind(self) -> dict[str, int]:
        """Return the connected devices that have not accepted their current assignment, and its number."""
        rows = self._database.rows(
            "SELECT device_id, sequence FROM devices WHERE online AND accepted_sequence < sequence"
        )
        return {row["device_id"]: row["sequence"] for row in rows}


def note_said(db: sqlite_utils.Database, device_id: str, said: Said, now_s: float) -> None:
    """Remember what a device said of itself, in the caller's transaction."""
    values: dict[str, Any] = {"last_seen_at_s": now_s}
    if said.online is not None:
        values["online"] = int(said.online)
    if said.hello is not None:
        values["capabilities"] = _json(said.hello.capabilities)
        values["accepted_sequence"] = said.hello.sequence
    if said.report is not None:
        values["reported"] = _json(said.report)
        values["accepted_sequence"] = said.report.sequence
    assignments = ", ".join(f"{name} = ?" for name in values)
    db.execute(
        f"UPDATE devices SET {assignments} WHERE device_id = ?",  # noqa: S608 - the names are those above
        [*values.values(), device_id],
    )
    if said.hello is not None:
        db.execute(
            "UPDATE devices SET sequence = ? WHERE device_id = ? AND sequence < ?",
            [said.hello.sequence + 1, device_id, said.hello.sequence],
        )


def _no_device(device_id: str) -> NotFound:
    return NotFound(
        f"There is no device {device_id!r:.80}.", remedy="`muster device list` shows those there are."
    )


def _enrol_again(db: sqlite_utils.Database, device: NewDevice, token_sha256: str, now_s: float) -> None:
    """Give a device another password if the answer to its enrolment may have been lost."""
    renewed = db.execute(
        "UPDATE devices SET password_hash = ? WHERE device_id = ? AND last_seen_at_s IS NULL AND EXISTS"
        " (SELECT 1 FROM enrolment_tokens WHERE secret_sha256 = ? AND used_by = ? AND expires_at_s > ?)",
        [device.password_hash, device.device_id, token_sha256, device.device_id, now_s],
    )
    if renewed.rowcount != 1:
        raise NotAuthenticated(
            "The enrolment token is unknown, used or expired.",
            remedy="Make a new one with `muster device token`.",
        )


def _list(device_ids: Iterable[str]) -> str:
    return _json(list(device_ids))


def _desired(rows: list[dict[str, Any]]) -> Desired:
    """Return what a device should run, of which there is a row for each of its orders."""
    orders = tuple(_order(row) for row in rows if row["model"] is not None)
    return Desired(rows[0]["sequence"], orders, wishes_of(rows[0]).to_send())


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _device(row: dict[str, Any]) -> DeviceRow:
    return DeviceRow(
        device_id=row["device_id"],
        attributes=_ATTRIBUTES.decode(row["attributes"]),
        capabilities=_CAPABILITIES.decode(row["capabilities"]),
        enrolled_at_s=row["enrolled_at_s"],
        online=bool(row["online"]),
        sequence=row["sequence"],
        accepted_sequence=row["accepted_sequence"],
        last_seen_at_s=row["last_seen_at_s"],
        reported=_REPORT.decode(row["reported"]) if row["reported"] else None,
    )


def _order(row: dict[str, Any]) -> ModelOrder:
    return ModelOrder(
        model=row["model"],
        version=row["version"],
        manifest_sha256=bytes.fromhex(row["manifest_sha256"]),
        variant=row["variant"],
        deployment_id=row["deployment_id"],
        alternatives=tuple(msgspec.json.decode(row["alternatives"], type=list[str])),
        policy=VariantPolicy(row["policy"]),
        shadow_s=row["shadow_s"],
        capture=capture_of(row.get("capture")),
        maintenance=_WINDOW.decode(row["maintenance"]) if row["maintenance"] else None,
        mode=Mode(row["mode"]),
    )
