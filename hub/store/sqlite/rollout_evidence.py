"""The evidence of a rollout's stages, in parts, of which a step writes those that it changed."""

from __future__ import annotations

import sqlite3
from itertools import groupby
from operator import itemgetter

import sqlite_utils

from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.gates.stored import changed_parts, from_parts
from fleet.rollout.state.rollout import Rollout

_WRITE = (
    "INSERT INTO rollout_evidence (rollout, stage, part, evidence) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (rollout, stage, part) DO UPDATE SET evidence = excluded.evidence"
)
_FORGET = "DELETE FROM rollout_evidence WHERE rollout = ? AND stage = ? AND part = ?"
_READ = "SELECT stage, part, evidence FROM rollout_evidence WHERE rollout = ? ORDER BY stage"


def write_evidence(db: sqlite_utils.Database, state: Rollout, previous: Rollout | None) -> None:
    """Write the parts that a step changed.

    Args:
        db: Inside a transaction.
        state: After the step.
        previous: Before it; None for a rollout that is new.
    """
    written: list[tuple[int, int, int, bytes]] = []
    forgotten: list[tuple[int, int, int]] = []
    known = [stage.evidence for stage in previous.stages] if previous else []
    for place, stage in enumerate(state.stages):
        before = known[place] if place < len(known) else None
        parts = changed_parts(stage.evidence, before)
        written += ((state.number, place, part, data) for part, data in parts.items())
        if before is not None:
            gone = before.spans.keys() - stage.evidence.spans.keys()
            forgotten += ((state.number, place, part) for part in gone)
    if written:
        db.conn.executemany(_WRITE, written)
    if forgotten:
        db.conn.executemany(_FORGET, forgotten)


def read_evidence(connection: sqlite3.Connection, number: int) -> tuple[Evidence, ...]:
    """Return the evidence of each stage of a rollout that has begun.

    Raises:
        StorageCorrupt: It cannot be read.
    """
    rows = connection.execute(_READ, [number]).fetchall()
    return tuple(
        from_parts({part: data for _, part, data in of_stage}) for _, of_stage in groupby(rows, itemgetter(0))
    )
