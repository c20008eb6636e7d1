"""Tests for concept drift."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from fleet.quality.concept import ConceptState
from hub.store.concept_rows import ConceptKey, ConceptRow
from hub.store.sqlite.database import Part

_READER = "quality"
_DECODER = msgspec.msgpack.Decoder(
    ConceptState
)  # made once: two threads that were the first to use a type crash


class SqliteQuality(Part):
    """Implements `hub.store.protocols.QualityStore`."""

    def quality_position(self) -> int:
        """Return how far the tests have read the records."""
        row = self._database.row("SELECT position FROM positions WHERE reader = ?", (_READER,))
        return int(row["position"]) if row else 0

    def save_concepts(self, position: int, rows: Sequence[ConceptRow]) -> None:
        """Store tests and the position that they include, in one transaction."""
        with self._database.writing() as db:
            db.execute(
                "INSERT INTO positions (reader, position) VALUES (?, ?)"
                " ON CONFLICT (reader) DO UPDATE SET position = excluded.position",
                [_READER, position],
            )
            db.conn.executemany(
                "INSERT OR REPLACE INTO concepts (device_id, model, version, raised, evidence, body)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (*row.key, row.state.raised, row.state.evidence, msgspec.msgpack.encode(row.state))
                    for row in rows
                ],
            )

    def concepts(self, keys: Iterable[ConceptKey]) -> dict[ConceptKey, ConceptRow]:
        """Return those of the tests that there are."""
        sql = "SELECT * FROM concepts WHERE device_id = ? AND model = ? AND version = ?"
        rows = [_row(found) for key in keys if (found := self._database.row(sql, tuple(key)))]
        return {row.key: row for row in rows}

    def concepts_of(
        self, model: str, *, device_id: str | None = None, raised: bool = False
    ) -> list[ConceptRow]:
        """Return a model's tests, by device and version."""
        rows = self._database.rows(
            "SELECT * FROM concepts WHERE model = ? AND (? IS NULL OR device_id = ?) AND raised >= ?"
            " ORDER BY device_id, version",
            (model, device_id, device_id, raised),
        )
        return [_row(row) for row in rows]

    def raised_concepts(self) -> list[ConceptRow]:
        """Return the tests of all models whose alarm is raised, by device."""
        rows = self._database.rows("SELECT * FROM concepts WHERE raised = 1 ORDER BY device_id")
        return [_row(row) for row in rows]

    def strong_concepts(self, least: float) -> list[ConceptRow]:
        """Return the tests with at least so much evidence."""
        rows = self._database.rows("SELECT * FROM concepts WHERE evidence >= ?", (least,))
        return [_row(row) for row in rows]


def _row(row: dict[str, Any]) -> ConceptRow:
    return ConceptRow(row["device_id"], row["model"], row["version"], _DECODER.decode(row["body"]))
