"""Rollouts: state and orders change in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlite_utils

from fleet.protocol.errors import Conflict, NotFound
from fleet.rollout.state import Rollout, Status, decode_rollout, encode_rollout
from hub.store.rows import OrderChange, RolloutHead, RolloutRow, Superseded
from hub.store.sqlite.database import Part
from hub.store.sqlite.migrations import table


class SqliteRollouts(Part):
    """Implements `hub.store.protocols.RolloutStore`."""

    def create_rollout(self, build: Callable[[int], Rollout], now_s: float) -> RolloutRow:
        """Number and store a new rollout, see `hub.store.protocols.RolloutStore.create_rollout`."""
        with self._database.writing() as db:
            state = build(_next_number(db))
            _insert(db, state, position=0, now_s=now_s)
        return RolloutRow(state=state, position=0, created_at_s=now_s)

    def apply_step(
        self,
        state: Rollout,
        *,
        previous_revision: int,
        position: int,
        changes: Sequence[OrderChange],
    ) -> None:
        """Store a step, see `hub.store.protocols.RolloutStore.apply_step`."""
        with self._database.writing() as db:
            _update(db, state, previous_revision)
            db.execute("UPDATE rollouts SET position = ? WHERE number = ?", [position, state.number])
            for change in changes:
                _change_order(db, change)

    def begin_rollback(
        self,
        build: Callable[[int], tuple[Rollout, Sequence[OrderChange]]],
        *,
        superseded: Sequence[Superseded],
        position: int,
        now_s: float,
    ) -> RolloutRow:
        """Put rollouts aside for another, see `hub.store.protocols.RolloutStore.begin_rollback`."""
        with self._database.writing() as db:
            for aside in superseded:
                _update(db, aside.state, aside.previous_revision)
            state, changes = build(_next_number(db))
            _insert(db, state, position=position, now_s=now_s)
            for change in changes:
                _change_order(db, change)
        return RolloutRow(state=state, position=position, created_at_s=now_s)

    def rollout(self, number: int) -> RolloutRow:
        """Return a rollout; raises `NotFound`."""
        row = self._database.row("SELECT * FROM rollouts WHERE number = ?", (number,))
        if row is None:
            raise NotFound(
                f"There is no rollout {number}.", remedy="`muster rollout list` shows those there are."
            )
        return _rollout(row)

    def rollouts(
        self, *, model: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[RolloutRow]:
        """Return rollouts, newest first."""
        rows = self._database.rows(
            "SELECT * FROM rollouts WHERE (? IS NULL OR model = ?) AND (? IS NULL OR number < ?)"
            " ORDER BY number DESC LIMIT ?",
            (model, model, before, before, limit),
        )
        return [_rollout(row) for row in rows]

    def rollout_counts(self) -> dict[Status, int]:
        """Return how many rollouts there are by status."""
        rows = self._database.rows("SELECT status, count(*) AS number FROM rollouts GROUP BY status")
        return {Status(row["status"]): row["number"] for row in rows}

    def newest_rollouts(self) -> list[RolloutHead]:
        """Return the newest rollout of each model that was started, by model."""
        rows = self._database.rows(
            "SELECT number, model, status, revision FROM rollouts WHERE number IN"
            " (SELECT max(number) FROM rollouts WHERE status <> ? GROUP BY model) ORDER BY model",
            (Status.CREATED.value,),
        )
        return [msgspec.convert(row, RolloutHead) for row in rows]

    def open_rollouts(self) -> list[RolloutRow]:
        """Return the rollouts that were started and have not ended."""
        return [
            _rollout(row)
            for row in self._database.rows("SELECT * FROM rollouts WHERE is_open ORDER BY number")
        ]


@contextmanager
def _one_under_way(model: str) -> Generator[None]:
    """Say in our words what the unique index ``one_open_rollout`` refused."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Conflict(
            f"Another rollout of {model} is under way.",
            remedy="Wait until it ends, or abort it with `muster rollout abort`.",
        ) from error


def _next_number(db: sqlite_utils.Database) -> int:
    return int(db.execute("SELECT coalesce(max(number), 0) + 1 FROM rollouts").fetchone()[0])


def _insert(db: sqlite_utils.Database, state: Rollout, *, position: int, now_s: float) -> None:
    columns = {"number": state.number, "created_at_s": now_s, "position": position, **_state_columns(state)}
    with _one_under_way(state.model):
        table(db, "rollouts").insert(columns)


def _update(db: sqlite_utils.Database, state: Rollout, previous_revision: int) -> None:
    with _one_under_way(state.model):
        updated = db.execute(
            "UPDATE rollouts SET model = ?, status = ?, is_open = ?, revision = ?, state = ?"
            " WHERE number = ? AND revision = ?",
            [*_state_columns(state).values(), state.number, previous_revision],
        )
    if updated.rowcount != 1:
        raise Conflict(
            f"Rollout {state.number} was changed by someone else at the same time.",
            remedy="Look at its status and try again.",
        )


def _change_order(db: sqlite_utils.Database, change: OrderChange) -> None:
    raised = db.execute("UPDATE devices SET sequence = sequence + 1 WHERE device_id = ?", [change.device_id])
    if raised.rowcount != 1:
        raise NotFound(f"There is no device {change.device_id!r:.80}.")
    if change.order is None:
        db.execute("DELETE FROM desired WHERE device_id = ? AND model = ?", [change.device_id, change.model])
        return
    order = change.order
    table(db, "desired").upsert(
        {
            "device_id": change.device_id,
            "model": change.model,
            "version": order.version,
            "manifest_sha256": order.manifest_sha256.hex(),
            "variant": order.variant,
            "deployment_id": order.deployment_id,
            "alternatives": msgspec.json.encode(order.alternatives).decode(),
            "policy": order.policy.value,
            "shadow_s": order.shadow_s,
        },
        pk=("device_id", "model"),
    )


def _state_columns(state: Rollout) -> dict[str, Any]:
    return {
        "model": state.model,
        "status": state.status.value,
        "is_open": int(state.status is not Status.CREATED and not state.status.is_final),
        "revision": state.revision,
        "state": encode_rollout(state).decode(),
    }


def _rollout(row: dict[str, Any]) -> RolloutRow:
    return RolloutRow(
        state=decode_rollout(row["state"].encode()),
        position=row["position"],
        created_at_s=row["created_at_s"],
    )
