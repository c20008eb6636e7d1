"""Windows added up over minutes, hours and days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlite_utils

from fleet.distinct import count_heard
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.records import SealedWindow, TelemetryWindow
from fleet.protocol.window_table import open_windows
from hub.store.sqlite.database import Part
from hub.store.telemetry_rows import (
    COHORT_RESOLUTIONS_S,
    DEVICE_RESOLUTIONS_S,
    EVERY_DEVICE,
    ONE_DEVICE,
    RollupKey,
    RollupRow,
    SealedRollup,
)

_WINDOWS = msgspec.msgpack.Decoder(SealedWindow)
_VALUES_AT_ONCE = 500
_SELECT = "SELECT key, value, model, version, duration_s, start_s, windows, heard, body FROM rollups"
_INSERT = (
    "INSERT OR REPLACE INTO rollups (key, value, model, version, duration_s, start_s, windows, heard, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_THIS_ONE = " WHERE key = ? AND value = ? AND model = ? AND version = ? AND duration_s = ? AND start_s = ?"


class SqliteRollups(Part):
    """Implements `hub.store.protocols.RollupStore`."""

    def rollups(
        self,
        *,
        model: str,
        key: str = EVERY_DEVICE,
        values: Sequence[str] | None = None,
        version: int | None = None,
        start_s: float,
        end_s: float,
        resolution_s: int,
        profiles: bool = True,
    ) -> list[RollupRow]:
        """Return sums by start, value and version."""
        possible = DEVICE_RESOLUTIONS_S if key == ONE_DEVICE else COHORT_RESOLUTIONS_S
        if resolution_s not in possible:
            raise InvalidMessage(f"There are no sums over {resolution_s} s for {key!r:.80}.")
        sql = (
            f"{_SELECT} WHERE model = ? AND key = ? AND duration_s = ?"
            " AND start_s >= ? AND start_s < ? AND (? IS NULL OR version = ?)"
        )
        parameters = (model, key, resolution_s, start_s, end_s, version, version)
        if values is None:
            found = self._database.rows(sql, parameters)
        else:
            found = []
            for first in range(0, len(values), _VALUES_AT_ONCE):
                chosen = tuple(values[first : first + _VALUES_AT_ONCE])
                places = ", ".join("?" * len(chosen))
                found += self._database.rows(f"{sql} AND value IN ({places})", (*parameters, *chosen))
        found.sort(key=lambda row: (row["start_s"], row["value"], row["version"]))
        sealed = [_WINDOWS.decode(row["body"]) for row in found]
        windows = open_windows(sealed) if profiles else map(_without_profile, sealed)
        return [_row(row, window) for row, window in zip(found, windows, strict=True)]

    def sealed_rollups(self, which: Iterable[RollupKey]) -> dict[RollupKey, SealedRollup]:
        """Return those of the sums that there are, as they are stored."""
        with self._database.reading() as connection:
            found = [connection.execute(_SELECT + _THIS_ONE, one).fetchone() for one in which]
        sealed = [SealedRollup(RollupKey(*row[:6]), *row[6:]) for row in found if row]
        return {rollup.which: rollup for rollup in sealed}

    def delete_rollups(self, *, duration_s: int, before_s: float, limit: int) -> int:
        """Forget sums of a resolution whose span ended before a time."""
        which = "duration_s = ? AND start_s < ? ORDER BY start_s"
        return self._database.delete_some("rollups", which, [duration_s, before_s - duration_s], limit=limit)


def put_rollups(db: sqlite_utils.Database, rollups: Iterable[SealedRollup]) -> None:
    """Store sums in place of those with the same keys, in the caller's transaction."""
    db.conn.executemany(
        _INSERT,
        [(*rollup.which, rollup.windows, rollup.heard, rollup.body) for rollup in rollups],
    )


def _without_profile(window: SealedWindow) -> TelemetryWindow:
    return TelemetryWindow(
        started_at_s=window.started_at_s,
        ended_at_s=window.ended_at_s,
        model=window.model,
        version=window.version,
        manifest_sha256=window.manifest_sha256,
        variant=window.variant,
        predictions=window.predictions,
        errors=window.errors,
        labelled=window.labelled,
        correct=window.correct,
        latency=window.latency,
        labels=window.labels,
    )


def _row(row: dict[str, Any], window: TelemetryWindow) -> RollupRow:
    return RollupRow(
        key=row["key"],
        value=row["value"],
        model=row["model"],
        version=row["version"],
        start_s=row["start_s"],
        duration_s=row["duration_s"],
        windows=row["windows"],
        devices=1 if row["key"] == ONE_DEVICE else count_heard(row["heard"]),
        window=window,
    )
