"""Sums of noised windows by version and day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import sqlite_utils

from fleet.privacy.sums import NoisedSum
from hub.store.sqlite.database import Part
from hub.store.telemetry_rows import DAY_S, NoisedKey

_SUMS = msgspec.msgpack.Decoder(NoisedSum)


class SqliteNoised(Part):
    """Implements `hub.store.protocols.NoisedStore`."""

    def noised_of(self, which: Iterable[NoisedKey]) -> dict[NoisedKey, NoisedSum]:
        """Return those of the sums that there are."""
        sql = "SELECT body FROM noised_sums WHERE model = ? AND version = ? AND start_s = ?"
        with self._database.reading() as connection:
            found = {key: connection.execute(sql, key).fetchone() for key in which}
        return {key: _SUMS.decode(row[0]) for key, row in found.items() if row}

    def noised_sums(self, model: str, *, start_s: float, end_s: float) -> dict[NoisedKey, NoisedSum]:
        """Return the sums of a model over a span of time."""
        rows = self._database.rows(
            "SELECT version, start_s, body FROM noised_sums WHERE model = ? AND start_s >= ? AND start_s < ?"
            " ORDER BY version, start_s",
            (model, start_s, end_s),
        )
        return {(model, row["version"], row["start_s"]): _SUMS.decode(row["body"]) for row in rows}

    def forget_noised(self, *, before_s: float, limit: int) -> int:
        """Forget sums of days that ended before a time."""
        which = "start_s < ? ORDER BY start_s"
        return self._database.delete_some("noised_sums", which, [before_s - DAY_S], limit=limit)


def put_noised(db: sqlite_utils.Database, sums: Mapping[NoisedKey, bytes]) -> None:
    """Store sums in place of those with the same keys, in the caller's transaction."""
    db.conn.executemany(
        "INSERT OR REPLACE INTO noised_sums (model, version, start_s, body) VALUES (?, ?, ?, ?)",
        [(*key, body) for key, body in sums.items()],
    )
