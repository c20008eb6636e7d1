"""The parts of devices in rollouts: a small row each, written when it changed.

A rollout's state is its summary, one JSON value that every step writes anew, and these rows. Causes are JSON;
times that are not there are NULL.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec
import sqlite_utils

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, StorageCorrupt
from fleet.rollout.state.columns import Attempt, Deployment, back_id, forward_id
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.rollout import Rollout

_COLUMNS = (
    "rollout, place, device_id, stage, stratum, previous_version, tries, state, since_s, ordered_s, cause,"
    " back_state, back_since_s, back_ordered_s, back_cause, answers_since_s, counted_in, due_s"
)
_NAMES = _COLUMNS.split(", ")
_WRITE = (
    f"INSERT INTO rollout_devices ({_COLUMNS}) VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608 - constants
    " ON CONFLICT (rollout, place) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _NAMES[2:])
)
_READ = f"SELECT {_COLUMNS} FROM rollout_devices WHERE rollout = ? ORDER BY place"  # noqa: S608 - constants
_CAUSE = msgspec.json.Decoder(Cause)


def write_devices(db: sqlite_utils.Database, state: Rollout, previous: Rollout | None) -> None:
    """Write the parts that a step changed.

    Args:
        db: Inside a transaction.
        state: After the step.
        previous: Before it; None for a rollout that is new.
    """
    before = previous.deployments if previous else None
    if before is state.deployments:
        return
    changed = state.deployments.at(state.deployments.changed_since(before))
    db.conn.executemany(_WRITE, (_values(state.number, part) for part in changed))
    if before is not None and len(before) > len(state.deployments):
        db.execute(
            "DELETE FROM rollout_devices WHERE rollout = ? AND place >= ?",
            [state.number, len(state.deployments)],
        )


def read_devices(connection: sqlite3.Connection, number: int) -> Deployments:
    """Return the parts of all devices in a rollout.

    Raises:
        StorageCorrupt: A row cannot be read, or one is missing.
    """
    return Deployments.of(number, _parts(number, connection.execute(_READ, [number])))


def read_members(connection: sqlite3.Connection, number: int) -> Iterator[str]:
    """Yield the ids of all devices in a rollout, and read nothing else of them."""
    sql = "SELECT device_id FROM rollout_devices WHERE rollout = ?"
    return (device_id for (device_id,) in connection.execute(sql, [number]))


def read_bringers(
    connection: sqlite3.Connection, rollouts: Collection[int], device_ids: Iterable[str]
) -> dict[str, int]:
    """Return the newest of some rollouts in which each device succeeded."""
    found = connection.execute(
        "SELECT device_id, max(rollout) FROM rollout_devices"
        " WHERE rollout IN (SELECT value FROM json_each(?))"
        " AND device_id IN (SELECT value FROM json_each(?)) AND state = ? GROUP BY device_id",
        (_list(rollouts), _list(device_ids), DeploymentState.SUCCEEDED.value),
    )
    return dict(found.fetchall())


def _list(values: Iterable[int] | Iterable[str]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _parts(number: int, rows: sqlite3.Cursor) -> Iterator[Deployment]:
    for place, row in zip(itertools.count(), rows, strict=False):
        try:
            part = _part(*row)
        except (ValueError, msgspec.MsgspecError) as error:
            raise StorageCorrupt(f"Device {place} of rollout {number} cannot be read: {error}.") from error
        if part.index != place:
            raise StorageCorrupt(f"Device {place} of rollout {number} is missing.")
        yield part


def _values(number: int, part: Deployment) -> tuple[Any, ...]:
    attempt, restore = part.attempt, part.restore
    back = (None,) * 4
    if restore is not None:
        back = (restore.state.value, restore.since_s, restore.ordered_s, _json(restore.cause))  # type: ignore[assignment]
    return (
        number,
        part.index,
        part.device_id,
        part.stage,
        part.stratum,
        part.previous_version,
        part.tries,
        attempt.state.value,
        attempt.since_s,
        attempt.ordered_s,
        _json(attempt.cause),
        *back,
        part.answers_since_s,
        part.counted_in,
        part.due_s,
    )


def _part(  # noqa: PLR0917 - a row's columns
    number: int,
    place: int,
    device_id: str,
    stage: int,
    stratum: int,
    previous_version: int | None,
    tries: int,
    state: str,
    since_s: float,
    ordered_s: float | None,
    cause: str | None,
    back_state: str | None,
    back_since_s: float,
    back_ordered_s: float | None,
    back_cause: str | None,
    answers_since_s: float | None,
    counted_in: int,
    due_s: float | None,
) -> Deployment:
    restore = None
    if back_state is not None:
        restore = Attempt(
            back_id(number, place),
            DeploymentState(back_state),
            back_since_s,
            back_ordered_s,
            _cause(back_cause),
        )
    return Deployment(
        place,
        device_id,
        stage,
        previous_version,
        Attempt(forward_id(number, place, tries), DeploymentState(state), since_s, ordered_s, _cause(cause)),
        restore,
        answers_since_s,
        counted_in,
        stratum,
        tries,
        due_s,
    )


def _json(cause: Cause | None) -> str | None:
    return None if cause is None else msgspec.json.encode(cause).decode()


def _cause(text: str | None) -> Cause | None:
    return None if text is None else _CAUSE.decode(text)
