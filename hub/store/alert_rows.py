"""What the store keeps of alerts beside `fleet.alerts`: messages to receivers, and how each was received."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

import msgspec

from fleet.alerts.alert import Alert
from fleet.alerts.matching import Silence
from fleet.alerts.telling import Occasion


class Outcome(StrEnum):
    """What became of a message."""

    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given_up"


class AlertMessage(msgspec.Struct, frozen=True):
    """What one receiver is to be told of one alert.

    Attributes:
        key: Names the message; the same whenever it is sent again, see `fleet.alerts.telling.message_key`.
        receiver: Whom.
        occasion: Why.
        alert: As it was then.
        created_at_s: When it was written.
        due_at_s: Before this it is not tried, or not again.
        attempts: How many have failed.
        outcome: What became of it.
        ended_at_s: When; None while it waits.
        error: Why the last attempt failed; empty if none did.
    """

    key: str
    receiver: str
    occasion: Occasion
    alert: Alert
    created_at_s: float
    due_at_s: float
    attempts: int = 0
    outcome: Outcome = Outcome.WAITING
    ended_at_s: float | None = None
    error: str = ""


class AlertsNow(msgspec.Struct, frozen=True):
    """What a look at the alerts starts from.

    Attributes:
        alerts: Those that are open.
        silences: Those in force.
        waiting: Receiver and alert of every message that waits.
    """

    alerts: Sequence[Alert]
    silences: Sequence[Silence]
    waiting: Collection[tuple[str, str]]


class AlertsStep(msgspec.Struct, frozen=True):
    """What a look changed.

    Attributes:
        changed: Alerts as they are now.
        dropped: Pending ones that were not found any more.
        messages: What receivers are to be told.
    """

    changed: Sequence[Alert] = ()
    dropped: Sequence[Alert] = ()
    messages: Sequence[AlertMessage] = ()


class ReceiverTally(msgspec.Struct, frozen=True):
    """How the messages to a receiver fared, of those that are still kept.

    Attributes:
        receiver: Its name.
        waiting: How many wait.
        given_up: How many were given up.
        last_sent_at_s: When it took the last one; None if it took none.
        error: Why the last attempt failed, if the newest message waits or was given up; else empty.
    """

    receiver: str
    waiting: int
    given_up: int
    last_sent_at_s: float | None
    error: str
