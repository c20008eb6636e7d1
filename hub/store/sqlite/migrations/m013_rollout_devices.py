"""Devices of rollouts get a row each, and decisions too; rollouts of the old form are taken apart.

The old form was one JSON value with every device in it: ``deployments.pages`` held them in the rollout's
order. The code that read it is gone, so it is read here as plain JSON.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations

_STATES = [
    *(
        "QUEUED",
        "DOWNLOADING",
        "VERIFYING",
        "STAGED",
        "SHADOW",
        "TRIAL",
        "SUCCEEDED",
        "FAILED",
        "ROLLED_BACK",
    ),
    *("REJECTED", "TIMED_OUT", "CANCELED", "REMOVED"),
]
_INSERT = "INSERT INTO rollout_devices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OPEN = frozenset(_STATES[:6])
_HISTORY_KEPT = 100


@migrations()
def m013_rollout_devices(db: sqlite_utils.Database) -> None:
    """Create the tables and fill them from the rollouts that there are."""
    # Read and written in the order of their keys: without row ids, which sqlite-utils cannot say.
    db.execute(
        "CREATE TABLE rollout_devices (rollout INTEGER NOT NULL, place INTEGER NOT NULL,"
        " device_id TEXT NOT NULL, stage INTEGER NOT NULL, stratum INTEGER NOT NULL,"
        " previous_version INTEGER, tries INTEGER NOT NULL, state TEXT NOT NULL, since_s REAL NOT NULL,"
        " ordered_s REAL, cause TEXT, back_state TEXT, back_since_s REAL, back_ordered_s REAL,"
        " back_cause TEXT, answers_since_s REAL, counted_in INTEGER NOT NULL, due_s REAL,"
        " PRIMARY KEY (rollout, place)) WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE rollout_decisions (rollout INTEGER NOT NULL, decision INTEGER NOT NULL,"
        " at_s REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,"
        " PRIMARY KEY (rollout, decision)) WITHOUT ROWID"
    )
    for number, text in db.execute("SELECT number, state FROM rollouts").fetchall():
        state = msgspec.json.decode(text)
        _take_apart(db, number, state)
        db.execute(
            "UPDATE rollouts SET state = ? WHERE number = ?", [msgspec.json.encode(state).decode(), number]
        )


def _take_apart(db: sqlite_utils.Database, number: int, state: dict[str, Any]) -> None:
    """Write a rollout's devices and decisions, and leave its summary in ``state``."""
    parts = [part for page in state.pop("deployments")["pages"] for part in page]
    timeout_s = state["plan"]["deployment_timeout_s"]
    forward_s = timeout_s + state["plan"].get("shadow_s", 0)
    rows = [_row(number, part, forward_s, timeout_s) for part in parts]
    db.conn.executemany(_INSERT, rows)
    tally = [[0] * (1 + len(_STATES)) for _ in state["cohort_ends"]]
    for part in parts:
        attempt = part["attempt"]
        waits = attempt["state"] == "QUEUED" and attempt.get("ordered_s") is None
        tally[part["stage"]][0 if waits else 1 + _STATES.index(attempt["state"])] += 1
    due = [row[-1] for row in rows if row[-1] is not None]
    state.pop("restore_deadline_s", None)
    state["tally"] = tally
    state["next_due_s"] = min(due, default=None)
    state["open_removals"] = sum(_is_open_removal(part) for part in parts)
    _keep_decisions(db, number, state)


def _keep_decisions(db: sqlite_utils.Database, number: int, state: dict[str, Any]) -> None:
    history = state["history"]
    db.conn.executemany(
        "INSERT INTO rollout_decisions VALUES (?, ?, ?, ?, ?)",
        [
            (number, place, entry["at_s"], entry["kind"], entry["text"])
            for place, entry in enumerate(history, start=1)
        ],
    )
    state["decisions"] = len(history)
    state["history"] = history[-_HISTORY_KEPT:]


def _row(number: int, part: dict[str, Any], forward_s: float, back_s: float) -> tuple[Any, ...]:
    attempt, restore = part["attempt"], part.get("restore")
    due_s = None
    if attempt["state"] in _OPEN and attempt.get("ordered_s") is not None:
        due_s = attempt["ordered_s"] + forward_s
    back: tuple[Any, ...] = (None,) * 4
    if restore is not None:
        back = (restore["state"], restore["since_s"], restore.get("ordered_s"), _cause(restore))
        if restore["state"] in _OPEN and restore.get("ordered_s") is not None:
            due_s = restore["ordered_s"] + back_s
    return (
        number,
        part["index"],
        part["device_id"],
        part["stage"],
        0,
        part["previous_version"],
        0,
        attempt["state"],
        attempt["since_s"],
        attempt.get("ordered_s"),
        _cause(attempt),
        *back,
        part.get("answers_since_s"),
        part.get("counted_in", -1),
        due_s,
    )


def _is_open_removal(part: dict[str, Any]) -> bool:
    restore = part.get("restore")
    return restore is not None and restore["state"] in _OPEN and part["previous_version"] is None


def _cause(attempt: dict[str, Any]) -> str | None:
    cause = attempt.get("cause")
    return None if cause is None else msgspec.json.encode(cause).decode()
