"""Alerts, the messages that tell receivers of them, and silences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from fleet.alerts.alert import Alert, Severity, State
from fleet.alerts.matching import Silence
from hub.store.alert_rows import AlertMessage, AlertsNow, AlertsStep, ReceiverTally


class AlertStore(Protocol):
    """Alerts, messages and silences: an alert and what is told of it change in one transaction."""

    def advance_alerts(self, step: Callable[[AlertsNow], AlertsStep], now_s: float) -> AlertsStep:
        """Change alerts and write what is to be told of them, all at once.

        Args:
            step: Pure and quick: no other write happens meanwhile.
            now_s: Unix seconds.

        Returns:
            What the step returned. A message whose key is stored already is left as it is.
        """
        ...

    def alert(self, key: str) -> Alert:
        """Return the newest episode of an alert; raises `NotFound`."""
        ...

    def alerts(
        self, *, open_only: bool = False, before: int | None = None, limit: int = 100
    ) -> list[tuple[int, Alert]]:
        """Return alerts with their places, newest first; a place rises with every episode.

        Args:
            open_only: Only those that have not ended.
            before: Only those with a lower place.
            limit: At most so many.
        """
        ...

    def change_alert(self, key: str, change: Callable[[Alert], Alert]) -> Alert:
        """Change the newest episode of an alert and return it; raises `NotFound`, or like ``change``."""
        ...

    def alert_counts(self) -> dict[tuple[State, Severity], int]:
        """Return how many open alerts there are, by state and severity; what is zero is left out."""
        ...

    def messages_due(self, receiver: str, now_s: float, *, limit: int = 100) -> list[AlertMessage]:
        """Return messages to a receiver that may be tried, oldest first; of each alert the oldest only."""
        ...

    def next_message_due_s(self, receiver: str) -> float | None:
        """Return when the first message to a receiver may be tried; None if none waits."""
        ...

    def save_messages(self, messages: Sequence[AlertMessage]) -> None:
        """Store what became of messages.

        Of the repetitions that a receiver was sent of one alert, the newest is kept: some receivers are told
        every minute.
        """
        ...

    def messages_about(self, alert: Alert) -> list[AlertMessage]:
        """Return what was to be told of an episode, oldest first."""
        ...

    def give_up_messages(self, receivers: Collection[str], now_s: float, error: str) -> int:
        """Give up all that waits for any but these receivers; return how many messages those were."""
        ...

    def receiver_tallies(self) -> list[ReceiverTally]:
        """Return how the messages fared, by receiver."""
        ...

    def add_silence(self, build: Callable[[int], Silence]) -> Silence:
        """Number and store a silence."""
        ...

    def silences(self, *, after_s: float = 0.0, limit: int = 1000) -> list[Silence]:
        """Return the silences that end after a time, newest first."""
        ...

    def end_silence(self, number: int, *, by: str, now_s: float) -> Silence:
        """End a silence now; raises `NotFound`, or `Conflict` if it has ended."""
        ...

    def forget_alerts(self, before_s: float) -> None:
        """Forget alerts, messages and silences that ended before a time."""
        ...
