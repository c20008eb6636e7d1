"""Rollouts: state and orders change in one transaction."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from typing import Any, NamedTuple

import msgspec
import sqlite_utils

from fleet.protocol.errors import Conflict, NotFound
from fleet.rollout.claims import Claim, priority_of
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.rollout import HistoryEntry, Rollout, Status, Summary
from fleet.rollout.state.stored import decode_summary, encode_summary, whole
from hub.store.rows import OrderChange, RolloutHead, RolloutRow, RolloutStep, SummaryRow, Superseded
from hub.store.sqlite.claims import change_claims
from hub.store.sqlite.database import Database, Part
from hub.store.sqlite.migrations import table
from hub.store.sqlite.orders import change_orders
from hub.store.sqlite.rollout_devices import read_bringers, read_devices, read_members, write_devices
from hub.store.sqlite.rollout_evidence import read_evidence, write_evidence

_SELECT = "SELECT number, revision, state, position, created_at_s FROM rollouts"


_KEPT_IN_MEMORY = 8
"""So many rollouts whose parts are at hand besides those under way, which are read every second."""


class _Known(NamedTuple):
    """The devices and the evidence of a rollout as they are in memory."""

    revision: int
    deployments: Deployments
    evidence: tuple[Evidence, ...]
    is_open: bool


class SqliteRollouts(Part):
    """Implements `hub.store.protocols.RolloutStore`.

    Devices and evidence of the rollouts under way and of those used last stay in memory, with the revision
    that they are of: the values never change, so readers share them. What is committed is put there; what is
    not of the revision that the file has is read anew.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._known_lock = threading.Lock()

    def create_rollout(self, build: Callable[[int], Rollout], now_s: float) -> RolloutRow:
        """Number and store a new rollout, see `hub.store.protocols.RolloutStore.create_rollout`."""
        with self._database.writing() as db:
            state = build(_next_number(db))
            _insert(db, state, position=0, now_s=now_s)
            change_claims(db, [(None, state)])
        self._remember(state)
        return RolloutRow(state=state, position=0, created_at_s=now_s)

    def apply_step(
        self, state: Rollout, *, previous: Rollout, position: int, changes: Sequence[OrderChange]
    ) -> None:
        """Store a step, see `hub.store.protocols.RolloutStore.apply_step`."""
        self.apply_steps([RolloutStep(state, previous, position, tuple(changes))])

    def apply_steps(self, steps: Sequence[RolloutStep]) -> None:
        """Store steps of several rollouts, see `hub.store.protocols.RolloutStore.apply_steps`."""
        with self._database.writing() as db:
            for step in steps:
                _update(db, step.state, step.previous)
                sql = "UPDATE rollouts SET position = ? WHERE number = ?"
                db.execute(sql, [step.position, step.state.number])
                change_orders(db, step.changes)
            change_claims(db, [(step.previous, step.state) for step in steps])
        for step in steps:
            self._remember(step.state)

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
                _update(db, aside.state, aside.previous)
            state, changes = build(_next_number(db))
            _insert(db, state, position=position, now_s=now_s)
            change_orders(db, changes)
            changed = [(aside.previous, aside.state) for aside in superseded]
            change_claims(db, [*changed, (None, state)])
        for known in (*(aside.state for aside in superseded), state):
            self._remember(known)
        return RolloutRow(state=state, position=position, created_at_s=now_s)

    def rollout(self, number: int) -> RolloutRow:
        """Return a rollout; raises `NotFound`."""
        with self._database.snapshot() as connection:
            row = self._found(connection, number)
            state = whole(row.state, self._devices(connection, row.state))
        return RolloutRow(state=state, position=row.position, created_at_s=row.created_at_s)

    def rollout_summary(self, number: int) -> SummaryRow:
        """Return a rollout without its devices; raises `NotFound`."""
        with self._database.snapshot() as connection:
            return self._found(connection, number)

    def rollouts(
        self, *, model: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[SummaryRow]:
        """Return rollouts without their devices, newest first."""
        with self._database.snapshot() as connection:
            rows = connection.execute(
                f"{_SELECT} WHERE (? IS NULL OR model = ?) AND (? IS NULL OR number < ?)"
                " ORDER BY number DESC LIMIT ?",
                (model, model, before, before, limit),
            ).fetchall()
            return [self._summary(connection, row) for row in rows]

    def decisions(self, number: int, *, after: int = 0, limit: int = 100) -> list[HistoryEntry]:
        """Return decisions about a rollout, see `hub.store.protocols.RolloutStore.decisions`."""
        rows = self._database.rows(
            "SELECT at_s, kind, text FROM rollout_decisions WHERE rollout = ? AND decision > ?"
            " ORDER BY decision LIMIT ?",
            (number, after, limit),
        )
        return [msgspec.convert(row, HistoryEntry) for row in rows]

    def rollout_counts(self) -> dict[Status, int]:
        """Return how many rollouts there are by status."""
        rows = self._database.rows("SELECT status, count(*) AS number FROM rollouts GROUP BY status")
        return {Status(row["status"]): row["number"] for row in rows}

    def count_awaiting_approval(self) -> int:
        """Return how many rollouts have a stage that waits for approval."""
        rows = self._database.rows(
            "SELECT count(*) AS number FROM rollouts"
            " WHERE is_open AND json_extract(state, '$.awaits_since_s') IS NOT NULL"
        )
        return int(rows[0]["number"])

    def newest_rollouts(self) -> list[RolloutHead]:
        """Return the newest started rollout of each model, and those under way, by model."""
        rows = self._database.rows(
            "SELECT number, model, status, revision,"
            " json_extract(state, '$.awaits_since_s') IS NOT NULL AS awaits_approval"
            " FROM rollouts WHERE is_open OR number IN"
            " (SELECT max(number) FROM rollouts WHERE status <> ? GROUP BY model) ORDER BY model, number",
            (Status.CREATED.value,),
        )
        return [msgspec.convert(row, RolloutHead, strict=False) for row in rows]

    def open_rollouts(self) -> list[RolloutRow]:
        """Return the rollouts that were started and have not ended."""
        found = self._database.rows("SELECT number FROM rollouts WHERE is_open ORDER BY number")
        return [self.rollout(row["number"]) for row in found]

    def unstarted_claims(self, model: str, device_ids: Set[str]) -> list[Claim]:
        """Return which devices would be reached, see `hub.store.protocols.RolloutStore.unstarted_claims`."""
        found: list[Claim] = []
        with self._database.snapshot() as connection:
            sql = f"{_SELECT} WHERE model = ? AND status = ? ORDER BY number"
            for row in connection.execute(sql, (model, Status.CREATED.value)).fetchall():
                state = self._summary(connection, row).state
                reached = read_members(connection, state.number)
                priority = priority_of(state)
                found += (
                    Claim(one, state.number, priority, is_ordered=False, is_started=False)
                    for one in reached
                    if one in device_ids
                )
        return found

    def brought_by(self, rollouts: Collection[int], device_ids: Iterable[str]) -> dict[str, int]:
        """Return the rollout that brought each device, see `hub.store.protocols.RolloutStore.brought_by`."""
        with self._database.reading() as connection:
            return read_bringers(connection, rollouts, device_ids)

    def _remember(self, state: Rollout) -> None:
        """Keep the devices of a rollout as the file has them."""
        with self._known_lock:
            known = self._known.get(state.number)
            if known is None or known.revision <= state.revision:
                evidence = tuple(stage.evidence for stage in state.stages)
                self._known[state.number] = _Known(
                    state.revision, state.deployments, evidence, _is_open(state)
                )
            self._known.move_to_end(state.number)
            others = [number for number, kept in self._known.items() if not kept.is_open]
            for number in others[:-_KEPT_IN_MEMORY]:
                del self._known[number]

    def _devices(self, connection: sqlite3.Connection, summary: Summary) -> Deployments:
        """Return the devices of the revision that the connection sees."""
        if (known := self._at_hand(summary.number, summary.revision)) is not None:
            return known.deployments
        deployments = read_devices(connection, summary.number)
        self._remember(whole(summary, deployments))
        return deployments

    def _at_hand(self, number: int, revision: int) -> _Known | None:
        """Return what is in memory of a revision; None if that is nothing."""
        with self._known_lock:
            known = self._known.get(number)
        return known if known is not None and known.revision == revision else None

    def _found(self, connection: sqlite3.Connection, number: int) -> SummaryRow:
        row = connection.execute(_SELECT + " WHERE number = ?", [number]).fetchone()
        if row is None:
            raise NotFound(
                f"There is no rollout {number}.", remedy="`muster rollout list` shows those there are."
            )
        return self._summary(connection, row)

    def _summary(self, connection: sqlite3.Connection, row: tuple[int, int, str, int, float]) -> SummaryRow:
        """Return what a row, and the evidence that the same snapshot has, comes to."""
        number, revision, text, position, created_at_s = row
        known = self._at_hand(number, revision)
        evidence = known.evidence if known is not None else read_evidence(connection, number)
        state = decode_summary(text.encode(), evidence)
        return SummaryRow(state=state, position=position, created_at_s=created_at_s)


def _next_number(db: sqlite_utils.Database) -> int:
    return int(db.execute("SELECT coalesce(max(number), 0) + 1 FROM rollouts").fetchone()[0])


def _insert(db: sqlite_utils.Database, state: Rollout, *, position: int, now_s: float) -> None:
    columns = {"number": state.number, "created_at_s": now_s, "position": position, **_state_columns(state)}
    table(db, "rollouts").insert(columns)
    write_evidence(db, state, None)
    write_devices(db, state, None)
    _add_decisions(db, state, 0)


def _update(db: sqlite_utils.Database, state: Rollout, previous: Rollout) -> None:
    updated = db.execute(
        "UPDATE rollouts SET model = ?, status = ?, is_open = ?, revision = ?, state = ?"
        " WHERE number = ? AND revision = ?",
        [*_state_columns(state).values(), state.number, previous.revision],
    )
    if updated.rowcount != 1:
        raise Conflict(
            f"Rollout {state.number} was changed by someone else at the same time.",
            remedy="Look at its status and try again.",
        )

    write_evidence(db, state, previous)
    write_devices(db, state, previous)
    _add_decisions(db, state, previous.decisions)


def _add_decisions(db: sqlite_utils.Database, state: Rollout, known: int) -> None:
    """Add the decisions that came since so many were known."""
    new = min(state.decisions - known, len(state.history))
    entries = state.history[len(state.history) - new :]
    db.conn.executemany(
        "INSERT INTO rollout_decisions (rollout, decision, at_s, kind, text) VALUES (?, ?, ?, ?, ?)",
        [
            (state.number, state.decisions - new + place, entry.at_s, entry.kind.value, entry.text)
            for place, entry in enumerate(entries, start=1)
        ],
    )


def _is_open(state: Summary) -> bool:
    return state.status is not Status.CREATED and not state.status.is_final


def _state_columns(state: Rollout) -> dict[str, Any]:
    return {
        "model": state.model,
        "status": state.status.value,
        "is_open": int(_is_open(state)),
        "revision": state.revision,
        "state": encode_summary(state).decode(),
    }
