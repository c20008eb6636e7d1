"""Looking: what is found becomes alerts, and what is to be told of them is written with them.

A look reads the facts first, which may take a while, and then changes alerts in one short transaction.
Nothing is sent here: `hub.alerts.delivery` sends what was written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from fleet.alerts.alert import Acknowledgement, Alert, Finding, State, one_line
from fleet.alerts.life import step
from fleet.alerts.matching import Match, Silence, muting
from fleet.alerts.telling import Occasion, Terms, message_key, occasion, tell
from fleet.protocol.errors import Conflict
from hub.alerts.settings import AlertSettings
from hub.store.alert_rows import AlertMessage, AlertsNow, AlertsStep
from hub.store.protocols import AlertStore

log = logging.getLogger(__name__)

KEPT_S = 30 * 86400.0
FORGET_EVERY_S = 3600.0
LONGEST_GAP_S = 60.0
"""After a longer time without a look, besides the interval, what was seen before says nothing of between."""


class AlertWatch:
    """Keeps alerts up to date. Its methods block on the store: call them in a thread.

    Args:
        store: Keeps alerts and messages.
        settings: Where alerts begin, and who is told.
        findings: Returns what is found at a time; may raise, then nothing is changed.
        gather_s: Returns how long messages to a receiver are gathered.
        on_messages: Called after messages were written.
    """

    def __init__(
        self,
        store: AlertStore,
        settings: AlertSettings,
        *,
        findings: Callable[[float], Iterable[Finding]],
        gather_s: Callable[[str], float],
        on_messages: Callable[[], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._findings = findings
        self._gather_s = gather_s
        self._on_messages = on_messages
        self._terms: Mapping[str, Terms] = {r.name: settings.terms(r) for r in settings.receiver}
        self._looked_at_s: float | None = None
        self._watched_since_s = 0.0
        self._forgot_at_s = 0.0

    def advance(self) -> None:
        """Look, if it is time to."""
        now_s, last_s = time.time(), self._looked_at_s
        if last_s is None or not 0.0 <= now_s - last_s < self._settings.rules.look_interval_s:
            self.look(now_s)
        if now_s - self._forgot_at_s >= FORGET_EVERY_S:
            self._store.forget_alerts(now_s - KEPT_S)
            self._forgot_at_s = now_s

    def look(self, now_s: float) -> None:
        """Look at a time, which is not before that of the last look unless the clock was set.

        Args:
            now_s: Unix seconds.

        Raises:
            StorageError: The store failed; nothing was changed.
        """
        found = {finding.matter.key: finding for finding in self._findings(now_s)}
        last_s, gap_s = self._looked_at_s, LONGEST_GAP_S + self._settings.rules.look_interval_s
        if last_s is None or not 0.0 <= now_s - last_s <= gap_s:
            self._watched_since_s = now_s
        self._looked_at_s = now_s
        done = self._store.advance_alerts(lambda now: self._stepped(now, found, now_s), now_s)
        for message in done.messages:
            if message.occasion is not Occasion.REPEATED:
                log.warning("Alert %s: %s", message.occasion.value, message.alert.matter.sentence)
        if done.messages:
            self._on_messages()

    def acknowledge(self, key: str, *, by: str, note: str) -> Alert:
        """Remember who takes care of an alert; raises `NotFound`, or `Conflict` if it has ended."""

        def change(alert: Alert) -> Alert:
            if alert.state is State.RESOLVED:
                raise Conflict(f"The alert {key} has ended.")
            acknowledged = Acknowledgement(time.time(), by, one_line(note))
            return msgspec.structs.replace(alert, acknowledged=acknowledged)

        return self._store.change_alert(key, change)

    def silence(self, match: Match, *, device: str | None, for_s: float, by: str, reason: str) -> Silence:
        """Add a silence, in force from the next look on."""
        now_s = time.time()
        return self._store.add_silence(
            lambda number: Silence(number, match, device, now_s, now_s + for_s, by, one_line(reason))
        )

    def _stepped(self, now: AlertsNow, found: Mapping[str, Finding], now_s: float) -> AlertsStep:
        """Return what a look changes; pure and quick, the store's writer waits for it."""
        open_alerts = {alert.matter.key: alert for alert in now.alerts}
        changed: list[Alert] = []
        dropped: list[Alert] = []
        messages: list[AlertMessage] = []
        for key in sorted(open_alerts.keys() | found.keys()):
            before, finding = open_alerts.get(key), found.get(key)
            alert = step(
                before,
                finding,
                now_s,
                watched_since_s=self._watched_since_s,
                clear_after_s=self._settings.rules.clear_after_s,
            )
            if alert is None:
                dropped += [before] if before else []
                continue
            if finding is not None:
                by = muting(finding.matter, finding.devices, now.silences, now_s)
                alert = msgspec.structs.replace(alert, silence=by)
            alert, told = self._told(alert, now, now_s)
            messages += told
            if alert != before:
                changed.append(alert)
        return AlertsStep(changed, dropped, messages)

    def _told(self, alert: Alert, now: AlertsNow, now_s: float) -> tuple[Alert, list[AlertMessage]]:
        """Return the alert after all were told who are to be told, and the messages to them."""
        messages: list[AlertMessage] = []
        for receiver, terms in self._terms.items():
            told = alert.told.get(receiver)
            routes = self._settings.routes
            if told is None and not any(
                receiver in route.receivers and route.match.holds(alert.matter) for route in routes
            ):
                continue
            waiting = (receiver, alert.identity) in now.waiting
            why = occasion(alert, told, terms, now_s, waiting=waiting)
            if why is None:
                continue
            alert = tell(alert, receiver, now_s)
            messages.append(
                AlertMessage(
                    key=message_key(alert, receiver),
                    receiver=receiver,
                    occasion=why,
                    alert=msgspec.structs.replace(alert, told={}),
                    created_at_s=now_s,
                    due_at_s=now_s + self._gather_s(receiver),
                )
            )
        return alert, messages
