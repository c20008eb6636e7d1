"""What operators wish of devices, and who did what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import sqlite_utils

from fleet.protocol.errors import NotFound
from fleet.protocol.wishes import LogLevel
from hub.store.rows import Action, DeviceWishes, Hold
from hub.store.sqlite.database import Part
from hub.store.sqlite.migrations import table


class SqliteWishes(Part):
    """Implements `hub.store.protocols.WishStore`."""

    def wishes(self, device_id: str) -> DeviceWishes:
        """Return what is wished of a device; nothing if there is no such device."""
        return wishes_of(self._database.row("SELECT * FROM wishes WHERE device_id = ?", (device_id,)))

    def held_devices(self) -> set[str]:
        """Return the devices whose updates are held."""
        rows = self._database.rows("SELECT device_id FROM wishes WHERE held_at_s IS NOT NULL")
        return {row["device_id"] for row in rows}

    def wish(
        self, device_id: str, change: Callable[[DeviceWishes], DeviceWishes], action: Action
    ) -> DeviceWishes:
        """Change what is wished of a device, see `hub.store.protocols.WishStore.wish`."""
        with self._database.writing() as db:
            if not db.execute("SELECT 1 FROM devices WHERE device_id = ?", [device_id]).fetchone():
                raise NotFound(f"There is no device {device_id!r:.80}.")
            before = wishes_of(next(db.query("SELECT * FROM wishes WHERE device_id = ?", [device_id]), None))
            after = change(before)
            if after == before:
                return after
            held = after.held
            table(db, "wishes").upsert(
                {
                    "device_id": device_id,
                    "log_level": after.log_level.value if after.log_level else None,
                    "held_by": held.by if held else None,
                    "held_reason": held.reason if held else None,
                    "held_at_s": held.at_s if held else None,
                    "diagnostics": after.diagnostics,
                    "count_noise": after.count_noise,
                },
                pk="device_id",
            )
            if after.to_send() != before.to_send():
                db.execute("UPDATE devices SET sequence = sequence + 1 WHERE device_id = ?", [device_id])
            remember_action(db, device_id, action)
        return after

    def add_action(self, device_id: str, action: Action) -> None:
        """Remember what an operator did; raises `NotFound`."""
        with self._database.writing() as db:
            if not db.execute("SELECT 1 FROM devices WHERE device_id = ?", [device_id]).fetchone():
                raise NotFound(f"There is no device {device_id!r:.80}.")
            remember_action(db, device_id, action)

    def actions(self, device_id: str, *, limit: int = 20) -> list[Action]:
        """Return what operators did about a device, newest first."""
        rows = self._database.rows(
            "SELECT at_s, by, text FROM actions WHERE device_id = ? ORDER BY number DESC LIMIT ?",
            (device_id, limit),
        )
        return [Action(**row) for row in rows]


def wishes_of(row: dict[str, Any] | None) -> DeviceWishes:
    """Return the wishes in a row of the table; nothing is wished where there is none."""
    if row is None:
        return DeviceWishes()
    held_at_s = row["held_at_s"]
    return DeviceWishes(
        log_level=LogLevel(row["log_level"]) if row["log_level"] else None,
        held=None if held_at_s is None else Hold(held_at_s, row["held_by"], row["held_reason"]),
        diagnostics=row["diagnostics"],
        count_noise=row["count_noise"],
    )


def remember_action(db: sqlite_utils.Database, device_id: str, action: Action) -> None:
    """Remember what an operator did about a device, in the caller's transaction."""
    table(db, "actions").insert({"device_id": device_id, **msgspec.structs.asdict(action)})
