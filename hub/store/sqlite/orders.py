"""Orders to devices: what each should run, and the sequence number that rises with every change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlite_utils

from fleet.protocol.assignment import ModelOrder
from fleet.protocol.errors import NotFound
from hub.store.rows import OrderChange

_ORDER = (
    "INSERT INTO desired (device_id, model, version, manifest_sha256, variant, deployment_id, alternatives,"
    " policy, shadow_s, maintenance, mode) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (device_id, model) DO UPDATE SET"
    " version = excluded.version, manifest_sha256 = excluded.manifest_sha256, variant = excluded.variant,"
    " deployment_id = excluded.deployment_id, alternatives = excluded.alternatives, policy = excluded.policy,"
    " shadow_s = excluded.shadow_s, maintenance = excluded.maintenance, mode = excluded.mode"
)


def change_orders(db: sqlite_utils.Database, changes: Sequence[OrderChange]) -> None:
    """Make changes in their order, each under its device's next sequence number.

    Raises:
        NotFound: One is for a device that there is not.
    """
    if not changes:
        return
    raised = db.conn.executemany(
        "UPDATE devices SET sequence = sequence + 1 WHERE device_id = ?",
        [(change.device_id,) for change in changes],
    )
    if raised.rowcount != len(changes):
        raise NotFound(f"There is no device {_unknown(db, changes)!r:.80}.")
    last = {(change.device_id, change.model): change.order for change in changes}  # the last one holds
    orders = [_values(device_id, order) for (device_id, _), order in last.items() if order is not None]
    removals = [key for key, order in last.items() if order is None]
    db.conn.executemany(_ORDER, orders)
    db.conn.executemany("DELETE FROM desired WHERE device_id = ? AND model = ?", removals)


def _unknown(db: sqlite_utils.Database, changes: Sequence[OrderChange]) -> str:
    sql = "SELECT 1 FROM devices WHERE device_id = ?"
    return next(c.device_id for c in changes if db.execute(sql, [c.device_id]).fetchone() is None)


def _values(device_id: str, order: ModelOrder) -> tuple[Any, ...]:
    return (
        device_id,
        order.model,
        order.version,
        order.manifest_sha256.hex(),
        order.variant,
        order.deployment_id,
        msgspec.json.encode(order.alternatives).decode(),
        order.policy.value,
        order.shadow_s,
        None if order.maintenance is None else msgspec.json.encode(order.maintenance).decode(),
        order.mode.value,
    )
