"""Captured samples, and by what policies devices capture them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlite_utils

from fleet.protocol.capture import CapturePolicy
from fleet.protocol.messages import encode
from fleet.protocol.samples import Reason, Sample, SampleMessage
from hub.store.rows import Action
from hub.store.sample_rows import CaptureRow, SampleFilter, SampleRow
from hub.store.sqlite.database import Part
from hub.store.sqlite.migrations import table
from hub.store.sqlite.wishes import remember_action

KEPT_STREAMS = 8
"""Of how many streams of a device the last number is known: a new one begins with each new spool."""

_POLICY = msgspec.json.Decoder(CapturePolicy)
_COLUMNS = (
    "number, device_id, model, version, at_s, received_at_s, reason, size_bytes, feature, redaction,"
    " category, confidence"
)
_TAKEN = "sample_bytes"
"""The name under which the size of all samples stands among the counts."""


class SqliteSamples(Part):
    """Implements `hub.store.protocols.SampleStore`."""

    def set_capture(
        self, model: str, device_ids: Sequence[str], policy: CapturePolicy | None, action: Action
    ) -> list[str]:
        """Set the policy of devices, see `hub.store.protocols.samples.SampleStore.set_capture`."""
        changed = []
        with self._database.writing() as db:
            for device_id in device_ids:
                if _set(db, device_id, model, policy, action):
                    db.execute("UPDATE devices SET sequence = sequence + 1 WHERE device_id = ?", [device_id])
                    remember_action(db, device_id, action)
                    changed.append(device_id)
        return changed

    def captures(self, *, model: str | None = None, device_id: str | None = None) -> list[CaptureRow]:
        """Return the policies that are set, by model and device."""
        rows = self._database.rows(
            "SELECT * FROM captures WHERE (? IS NULL OR model = ?) AND (? IS NULL OR device_id = ?)"
            " ORDER BY model, device_id",
            (model, model, device_id, device_id),
        )
        return [CaptureRow(**{**row, "policy": _POLICY.decode(row["policy"])}) for row in rows]

    def add_sample(self, device_id: str, message: SampleMessage, *, now_s: float, budget_bytes: int) -> bool:
        """Keep a sample, see `hub.store.protocols.samples.SampleStore.add_sample`."""
        with self._database.writing() as db:
            if not _is_new(db, device_id, message, now_s):
                return False
            table(db, "samples").insert(_row(device_id, message.sample, now_s))
            taken = _add_bytes(db, message.sample.size_bytes)
            while taken > budget_bytes:
                oldest = "DELETE FROM samples WHERE number = (SELECT min(number) FROM samples)"
                row = db.execute(f"{oldest} RETURNING size_bytes").fetchone()
                taken = _add_bytes(db, -row[0])
        return True

    def samples(self, wanted: SampleFilter, *, after: int = 0, limit: int = 100) -> list[SampleRow]:
        """Return samples by number, without their inputs."""
        where, values = _where(wanted)
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM samples WHERE number > ? AND {where} ORDER BY number LIMIT ?",  # noqa: S608 - our texts
            (after, *values, limit),
        )
        return [SampleRow(**{**row, "reason": Reason(row["reason"])}) for row in rows]

    def sample_data(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the encoded samples with these numbers; those that are gone are left out."""
        rows = self._database.rows(
            "SELECT number, data FROM samples WHERE number IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(list(numbers)).decode(),),
        )
        return {row["number"]: bytes(row["data"]) for row in rows}

    def delete_samples(self, wanted: SampleFilter) -> int:
        """Delete samples for good; return how many."""
        where, values = _where(wanted)
        with self._database.writing() as db:
            sql = f"DELETE FROM samples WHERE {where} RETURNING size_bytes"  # noqa: S608 - our texts
            sizes = [row[0] for row in db.execute(sql, list(values)).fetchall()]
            _add_bytes(db, -sum(sizes))
        if sizes:
            self._database.give_back_space()  # and out of the write-ahead log
        return len(sizes)

    def sample_bytes(self, device_id: str, model: str, *, since_s: float) -> int:
        """Return how many bytes of samples there are of a device and model, received since a time."""
        row = self._database.row(
            "SELECT coalesce(sum(size_bytes), 0) AS total FROM samples WHERE device_id = ? AND model = ?"
            " AND received_at_s >= ?",
            (device_id, model, since_s),
        )
        return int(row["total"]) if row else 0


def capture_of(text: str | None) -> CapturePolicy | None:
    """Return the policy in a column of `desired`'s rows; None where there is none."""
    return None if text is None else _POLICY.decode(text)


def _set(
    db: sqlite_utils.Database, device_id: str, model: str, policy: CapturePolicy | None, action: Action
) -> bool:
    """Set one device's policy; tell whether that changed anything."""
    if not db.execute("SELECT 1 FROM devices WHERE device_id = ?", [device_id]).fetchone():
        return False
    key = [device_id, model]
    row = db.execute("SELECT policy FROM captures WHERE device_id = ? AND model = ?", key).fetchone()
    if capture_of(row[0] if row else None) == policy:
        return False
    if policy is None:
        db.execute("DELETE FROM captures WHERE device_id = ? AND model = ?", key)
    else:
        table(db, "captures").upsert(
            {
                "device_id": device_id,
                "model": model,
                "policy": msgspec.json.encode(policy).decode(),
                "at_s": action.at_s,
                "by": action.by,
            },
            pk=("device_id", "model"),
        )
    return True


def _is_new(db: sqlite_utils.Database, device_id: str, message: SampleMessage, now_s: float) -> bool:
    """Remember that a number of a stream was taken; tell whether it is above the last one."""
    new = db.execute(
        "INSERT INTO sample_streams (device_id, stream, last_number, at_s) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (device_id, stream) DO UPDATE SET last_number = excluded.last_number,"
        " at_s = excluded.at_s WHERE excluded.last_number > last_number",
        [device_id, message.stream, message.number, now_s],
    )
    if new.rowcount != 1:
        return False
    db.execute(
        "DELETE FROM sample_streams WHERE device_id = ? AND stream NOT IN"
        " (SELECT stream FROM sample_streams WHERE device_id = ? ORDER BY at_s DESC LIMIT ?)",
        [device_id, device_id, KEPT_STREAMS],
    )
    return True


def _row(device_id: str, sample: Sample, now_s: float) -> dict[str, Any]:
    return {
        "device_id": device_id,
        "model": sample.model,
        "version": sample.version,
        "at_s": sample.at_s,
        "received_at_s": now_s,
        "reason": sample.reason.value,
        "feature": sample.feature,
        "redaction": sample.redaction,
        "category": sample.category,
        "confidence": sample.confidence,
        "size_bytes": sample.size_bytes,
        "data": encode(sample),
    }


def _add_bytes(db: sqlite_utils.Database, size_bytes: int) -> int:
    """Change the size of all samples, and return it."""
    total: int = db.execute(
        "INSERT INTO counts (name, total) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET total = total + excluded.total RETURNING total",
        [_TAKEN, size_bytes],
    ).fetchone()[0]
    return total


def _where(wanted: SampleFilter) -> tuple[str, tuple[Any, ...]]:
    """Return the condition that samples meet, and its values."""
    conditions = {
        "model = ?": wanted.model,
        "device_id = ?": wanted.device_id,
        "reason = ?": wanted.reason.value if wanted.reason else None,
        "received_at_s >= ?": wanted.since_s,
        "received_at_s < ?": wanted.until_s,
    }
    given = {condition: value for condition, value in conditions.items() if value is not None}
    return " AND ".join(given) or "TRUE", tuple(given.values())
