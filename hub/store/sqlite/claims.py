"""Claims of rollouts on devices: the primary key lets a device belong to one rollout of a model."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

import sqlite_utils

from fleet.protocol.errors import Conflict
from fleet.rollout.claims import changed_claims
from fleet.rollout.state.rollout import Rollout
from hub.store.sqlite.database import Part

_AT_ONCE = 500
_READ = "SELECT device_id, rollout FROM rollout_claims WHERE model = ? AND device_id IN"
_TAKE = "INSERT INTO rollout_claims (model, device_id, rollout) VALUES (?, ?, ?)"
_GIVE_UP = "DELETE FROM rollout_claims WHERE model = ? AND device_id = ? AND rollout = ?"


class SqliteClaims(Part):
    """Implements `hub.store.protocols.ClaimStore`."""

    def claimed_by(self, model: str, device_ids: Collection[str]) -> dict[str, int]:
        """Return which rollout has each device, see `hub.store.protocols.ClaimStore.claimed_by`."""
        asked, found = list(device_ids), dict[str, int]()
        with self._database.reading() as connection:
            for start in range(0, len(asked), _AT_ONCE):
                some = asked[start : start + _AT_ONCE]
                marks = ", ".join("?" for _ in some)
                found.update(connection.execute(f"{_READ} ({marks})", (model, *some)).fetchall())
        return found


def change_claims(db: sqlite_utils.Database, steps: Iterable[tuple[Rollout | None, Rollout]]) -> None:
    """Let claims follow changes of rollouts.

    Args:
        db: Inside a transaction.
        steps: The states before, None for a rollout that is new, and after; what ends is given up first.

    Raises:
        Conflict: A device would belong to two rollouts of a model.
    """
    changes = [(after, changed_claims(before, after)) for before, after in steps]
    for after, change in changes:
        db.conn.executemany(_GIVE_UP, ((after.model, name, after.number) for name in change.ended))
    for after, change in changes:
        try:
            db.conn.executemany(_TAKE, ((after.model, name, after.number) for name in change.begun))
        except sqlite3.IntegrityError as error:
            raise Conflict(
                f"Another rollout of {after.model} has devices of rollout {after.number} meanwhile.",
                remedy="Look at what is under way with `muster rollout list` and try again.",
            ) from error
