"""Alerts, the messages that tell receivers of them, and silences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec
import sqlite_utils

from fleet.alerts.alert import Alert, Severity, State
from fleet.alerts.matching import Silence
from fleet.alerts.telling import Occasion
from fleet.protocol.errors import Conflict, NotFound
from hub.store.alert_rows import AlertMessage, AlertsNow, AlertsStep, Outcome, ReceiverTally
from hub.store.sqlite.database import Part

_ALERT = msgspec.json.Decoder(Alert)  # made once: two threads that were the first to use a type crash
_MESSAGE = msgspec.json.Decoder(AlertMessage)
_SILENCE = msgspec.json.Decoder(Silence)
_NEWEST = "SELECT body FROM alerts WHERE key = ? ORDER BY place DESC LIMIT 1"


class SqliteAlerts(Part):
    """Implements `hub.store.protocols.AlertStore`."""

    def advance_alerts(self, step: Callable[[AlertsNow], AlertsStep], now_s: float) -> AlertsStep:
        """Change alerts and write what is told, see `hub.store.protocols.AlertStore.advance_alerts`."""
        with self._database.writing() as db:
            done = step(
                AlertsNow(
                    alerts=[_ALERT.decode(row["body"]) for row in db.query(_open("SELECT body"))],
                    silences=_silences(db.query("SELECT body FROM silences WHERE ends_at_s > ?", [now_s])),
                    waiting={
                        (row["receiver"], row["alert"])
                        for row in db.query(
                            "SELECT DISTINCT receiver, alert FROM alert_messages WHERE outcome = ?",
                            [Outcome.WAITING.value],
                        )
                    },
                )
            )
            for alert in done.dropped:
                db.execute("DELETE FROM alerts WHERE key = ? AND episode = ?", [*_name(alert)])
            for alert in done.changed:
                _save(db, alert)
            for message in done.messages:
                db.execute(
                    "INSERT INTO alert_messages"
                    " (key, receiver, alert, occasion, due_at_s, outcome, ended_at_s, error, body)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                    [message.key, *_about(message), message.occasion.value, *_fate(message)],
                )
        return done

    def alert(self, key: str) -> Alert:
        """Return the newest episode of an alert; raises `NotFound`."""
        return _alert(self._database.row(_NEWEST, (key,)), key)

    def alerts(
        self, *, open_only: bool = False, before: int | None = None, limit: int = 100
    ) -> list[tuple[int, Alert]]:
        """Return alerts with their places, newest first."""
        rows = self._database.rows(
            "SELECT place, body FROM alerts WHERE (NOT ? OR state <> ?) AND (? IS NULL OR place < ?)"
            " ORDER BY place DESC LIMIT ?",
            (open_only, State.RESOLVED.value, before, before, limit),
        )
        return [(row["place"], _ALERT.decode(row["body"])) for row in rows]

    def change_alert(self, key: str, change: Callable[[Alert], Alert]) -> Alert:
        """Change the newest episode of an alert and return it; raises `NotFound`."""
        with self._database.writing() as db:
            alert = change(_alert(next(db.query(_NEWEST, [key]), None), key))
            _save(db, alert)
        return alert

    def alert_counts(self) -> dict[tuple[State, Severity], int]:
        """Return how many open alerts there are, by state and severity."""
        rows = self._database.rows(
            _open("SELECT state, severity, count(*) AS number") + " GROUP BY state, severity"
        )
        return {(State(row["state"]), Severity(row["severity"])): row["number"] for row in rows}

    def messages_due(self, receiver: str, now_s: float, *, limit: int = 100) -> list[AlertMessage]:
        """Return messages to a receiver that may be tried; of each alert the oldest only."""
        rows = self._database.rows(
            "SELECT body FROM alert_messages WHERE due_at_s <= ? AND place IN"
            " (SELECT min(place) FROM alert_messages WHERE outcome = ? AND receiver = ? GROUP BY alert)"
            " ORDER BY place LIMIT ?",
            (now_s, Outcome.WAITING.value, receiver, limit),
        )
        return [_MESSAGE.decode(row["body"]) for row in rows]

    def next_message_due_s(self, receiver: str) -> float | None:
        """Return when the first message to a receiver may be tried; None if none waits."""
        row = self._database.row(
            "SELECT min(due_at_s) AS due_at_s FROM alert_messages WHERE place IN"
            " (SELECT min(place) FROM alert_messages WHERE outcome = ? AND receiver = ? GROUP BY alert)",
            (Outcome.WAITING.value, receiver),
        )
        return row["due_at_s"] if row else None

    def save_messages(self, messages: Sequence[AlertMessage]) -> None:
        """Store what became of messages."""
        with self._database.writing() as db:
            for message in messages:
                if message.occasion is Occasion.REPEATED and message.outcome is Outcome.SENT:
                    db.execute(
                        "DELETE FROM alert_messages WHERE receiver = ? AND alert = ? AND occasion = ?"
                        " AND outcome = ?",
                        [*_about(message), message.occasion.value, message.outcome.value],
                    )
                _save_fate(db, message)

    def messages_about(self, alert: Alert) -> list[AlertMessage]:
        """Return what was to be told of an episode, oldest first."""
        rows = self._database.rows(
            "SELECT body FROM alert_messages WHERE alert = ? ORDER BY place", (alert.identity,)
        )
        return [_MESSAGE.decode(row["body"]) for row in rows]

    def give_up_messages(self, receivers: Collection[str], now_s: float, error: str) -> int:
        """Give up all that waits for any but these receivers; return how many messages those were."""
        with self._database.writing() as db:
            rows = db.query("SELECT body FROM alert_messages WHERE outcome = ?", [Outcome.WAITING.value])
            waiting = [_MESSAGE.decode(row["body"]) for row in rows]
            left = [message for message in waiting if message.receiver not in receivers]
            for message in left:
                _save_fate(
                    db,
                    msgspec.structs.replace(message, outcome=Outcome.GIVEN_UP, ended_at_s=now_s, error=error),
                )
        return len(left)

    def receiver_tallies(self) -> list[ReceiverTally]:
        """Return how the messages fared, by receiver."""
        rows = self._database.rows(
            "SELECT receiver, sum(outcome = 'waiting') AS waiting, sum(outcome = 'given_up') AS given_up,"
            " max(CASE WHEN outcome = 'sent' THEN ended_at_s END) AS last_sent_at_s,"
            " (SELECT m.error FROM alert_messages m WHERE m.receiver = alert_messages.receiver"
            "  AND m.outcome <> 'sent' ORDER BY m.place DESC LIMIT 1) AS error"
            " FROM alert_messages GROUP BY receiver ORDER BY receiver"
        )
        return [ReceiverTally(**{**row, "error": row["error"] or ""}) for row in rows]

    def add_silence(self, build: Callable[[int], Silence]) -> Silence:
        """Number and store a silence."""
        with self._database.writing() as db:
            last = db.execute("SELECT coalesce(max(number), 0) FROM silences").fetchone()[0]
            silence = build(int(last) + 1)
            _save_silence(db, silence)
        return silence

    def silences(self, *, after_s: float = 0.0, limit: int = 1000) -> list[Silence]:
        """Return the silences that end after a time, newest first."""
        return _silences(
            self._database.rows(
                "SELECT body FROM silences WHERE ends_at_s > ? ORDER BY number DESC LIMIT ?", (after_s, limit)
            )
        )

    def end_silence(self, number: int, *, by: str, now_s: float) -> Silence:
        """End a silence now; raises `NotFound`, or `Conflict` if it has ended."""
        with self._database.writing() as db:
            found = _silences(db.query("SELECT body FROM silences WHERE number = ?", [number]))
            if not found:
                raise NotFound(
                    f"There is no silence {number}.", remedy="`muster alerts silences` shows those there are."
                )
            if found[0].ends_at_s <= now_s:
                raise Conflict(f"Silence {number} has ended already.")
            ended = msgspec.structs.replace(found[0], ends_at_s=now_s, ended_by=by)
            _save_silence(db, ended)
        return ended

    def forget_alerts(self, before_s: float) -> None:
        """Forget alerts, messages and silences that ended before a time."""
        with self._database.writing() as db:
            for name in ("alerts", "alert_messages"):
                db.execute(f"DELETE FROM {name} WHERE ended_at_s < ?", [before_s])  # noqa: S608 - our names
            db.execute("DELETE FROM silences WHERE ends_at_s < ?", [before_s])


def _open(select: str) -> str:
    return f"{select} FROM alerts WHERE state IN ('{State.PENDING}', '{State.FIRING}')"


def _name(alert: Alert) -> tuple[str, int]:
    return alert.matter.key, alert.episode


def _alert(row: dict[str, Any] | None, key: str) -> Alert:
    if row is None:
        raise NotFound(f"There is no alert {key!r:.300}.", remedy="`muster alerts list --all` shows them.")
    return _ALERT.decode(row["body"])


def _save(db: sqlite_utils.Database, alert: Alert) -> None:
    db.execute(
        "INSERT INTO alerts (key, episode, state, severity, ended_at_s, body) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (key, episode) DO UPDATE SET state = excluded.state, severity = excluded.severity,"
        " ended_at_s = excluded.ended_at_s, body = excluded.body",
        [
            *_name(alert),
            alert.state.value,
            alert.matter.severity.value,
            alert.ended_at_s,
            msgspec.json.encode(alert),
        ],
    )


def _about(message: AlertMessage) -> tuple[str, str]:
    """Return whom a message tells of which episode."""
    return message.receiver, message.alert.identity


def _fate(message: AlertMessage) -> tuple[Any, ...]:
    return (
        message.due_at_s,
        message.outcome.value,
        message.ended_at_s,
        message.error,
        msgspec.json.encode(message),
    )


def _save_fate(db: sqlite_utils.Database, message: AlertMessage) -> None:
    db.execute(
        "UPDATE alert_messages SET due_at_s = ?, outcome = ?, ended_at_s = ?, error = ?, body = ?"
        " WHERE key = ?",
        [*_fate(message), message.key],
    )


def _save_silence(db: sqlite_utils.Database, silence: Silence) -> None:
    db.execute(
        "INSERT OR REPLACE INTO silences (number, ends_at_s, body) VALUES (?, ?, ?)",
        [silence.number, silence.ends_at_s, msgspec.json.encode(silence)],
    )


def _silences(rows: Any) -> list[Silence]:
    return [_SILENCE.decode(row["body"]) for row in rows]
