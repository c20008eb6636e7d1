"""The evidence of a rollout's stages gets rows of its own, and counts are stored without their names.

A tally that was ``{"bad": 1, "total": 9, …}`` is an array of the same values, in the order of `_TALLY`; in
verdicts too, which stay in the summary.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations

_TALLY = {"bad": 0, "total": 0, "bad_squared": 0.0, "cross": 0.0, "total_squared": 0.0, "cells": {}}
_WHOLE = -1
_APART: list[Any] = [[0, 0, 0, [], {}, 0]] * 2 + [{}] * 2
"""What stands in a summary in place of evidence."""


@migrations()
def m020_evidence_apart(db: sqlite_utils.Database) -> None:
    """Create the table and take apart what there is."""
    # With row ids, which sqlite-utils cannot leave to a table of this key: a part fills most of a page.
    db.execute(
        "CREATE TABLE rollout_evidence (rollout INTEGER NOT NULL, stage INTEGER NOT NULL,"
        " part INTEGER NOT NULL, evidence BLOB NOT NULL, PRIMARY KEY (rollout, stage, part))"
    )
    for number, text in db.execute("SELECT number, state FROM rollouts").fetchall():
        state = msgspec.json.decode(text)
        for place, stage in enumerate(state.get("stages", ())):
            _write(db, number, place, stage["evidence"])
            stage["evidence"] = _APART
        for metric in (state.get("verdict") or {}).get("metrics", ()):
            metric["canary"], metric["control"] = _tally(metric["canary"]), _tally(metric["control"])
        db.execute(
            "UPDATE rollouts SET state = ? WHERE number = ?", [msgspec.json.encode(state).decode(), number]
        )


def _write(db: sqlite_utils.Database, rollout: int, stage: int, evidence: dict[str, Any]) -> None:
    """Write the sums, and each span with what every group said in it."""
    groups = evidence.get("groups", {})
    parts = {_WHOLE: _both(evidence, groups)}
    for span, said in evidence.get("spans", {}).items():
        of_span = {group: one["spans"][span] for group, one in groups.items() if span in one.get("spans", {})}
        parts[int(span)] = _both(said, of_span)
    db.conn.executemany(
        "INSERT INTO rollout_evidence (rollout, stage, part, evidence) VALUES (?, ?, ?, ?)",
        [(rollout, stage, part, msgspec.msgpack.encode(both)) for part, both in parts.items()],
    )


def _both(evidence: dict[str, Any], groups: dict[str, Any]) -> list[Any]:
    of_groups = {int(group): _both(said, {}) for group, said in groups.items()}
    return [_arm(evidence["canary"]), _arm(evidence["control"]), {}, of_groups]


def _arm(arm: dict[str, Any]) -> list[Any]:
    strata = {name: _arm(stratum) for name, stratum in arm.get("strata", {}).items()}
    tallies = [_tally(tally) for tally in arm["tallies"]]
    return [arm["devices"], arm["windows"], arm["unusable"], tallies, strata, arm.get("noised", 0)]


def _tally(tally: dict[str, Any]) -> list[Any]:
    values = {**_TALLY, **tally}
    values["cells"] = {int(cell): number for cell, number in values["cells"].items()}
    return [values[name] for name in _TALLY]
