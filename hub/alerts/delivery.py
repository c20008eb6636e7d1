"""Sending what was written: one task for each receiver, so that one that is slow or down holds up no other.

::

    write ──→ waiting ── taken ──→ sent
                 ↑  │
                 │  │ not taken: again after a wait that doubles
                 └──┤
                    └ not taken for `give_up_after_s`, or its receiver is gone ──→ given up

A message is marked as sent after the receiver took it: a hub that is killed in between sends it again, under
the same id. Of each alert a receiver is sent the messages in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from fleet.alerts.alert import Alert, Severity, State, finding
from fleet.alerts.telling import Occasion
from fleet.protocol.errors import MusterError, NotFound, StorageError, Unavailable
from hub.alerts.alertmanager import AlertmanagerSender
from hub.alerts.mail import EmailSender
from hub.alerts.pace import Allowance, retry_wait_s
from hub.alerts.receivers import Email, Receiver, Webhook
from hub.alerts.settings import AlertSettings
from hub.alerts.webhook import WebhookSender
from hub.store.alert_rows import AlertMessage, Outcome
from hub.store.protocols import AlertStore
from hub.tracing import span

log = logging.getLogger(__name__)

LONGEST_SLEEP_S = 60.0
AFTER_TROUBLE_S = 5.0


class Sender(Protocol):
    """Sends to one receiver.

    Attributes:
        most_at_once: How many messages go out together.
        gather_s: How long messages are gathered before.
    """

    most_at_once: int
    gather_s: float

    async def send(self, messages: Sequence[AlertMessage], now_s: float) -> None:
        """Send messages together; raises `Unavailable` if they were not taken."""
        ...

    async def close(self) -> None:
        """Let go of what is kept open."""
        ...


def sender_for(receiver: Receiver, folder: Path, hub_url: str) -> Sender:
    """Return what sends to a receiver.

    Args:
        receiver: Its settings.
        folder: At which relative paths in them begin.
        hub_url: Before links.

    Raises:
        InvalidConfiguration: A setting or secret cannot be used.
    """
    if isinstance(receiver, Webhook):
        return WebhookSender(receiver, folder, hub_url)
    if isinstance(receiver, Email):
        return EmailSender(receiver, folder, hub_url)
    return AlertmanagerSender(receiver, folder, hub_url)


class Delivery:
    """Sends what waits in the store to the receivers.

    Args:
        store: Keeps messages until they are sent.
        settings: Name the receivers.
        senders: For each of them, by name.
    """

    def __init__(self, store: AlertStore, settings: AlertSettings, senders: Mapping[str, Sender]) -> None:
        self._store = store
        self._give_up_after_s = settings.give_up_after_s
        self._lines = {
            receiver.name: _Line(receiver, senders[receiver.name]) for receiver in settings.receiver
        }
        self.counts: Counter[tuple[str, str]] = Counter(
            {(receiver.kind, outcome): 0 for receiver in settings.receiver for outcome in OUTCOMES}
        )
        """Messages by kind of receiver and what became of an attempt, since the hub started."""

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each receiver."""
        return {name: line.receiver.kind for name, line in self._lines.items()}

    def gather_s(self, receiver: str) -> float:
        """Return how long messages to a receiver are gathered."""
        return self._lines[receiver].sender.gather_s

    def wake(self) -> None:
        """Look at what waits at once; in the event loop only."""
        for line in self._lines.values():
            line.woken.set()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            await asyncio.to_thread(self._give_up_what_nobody_gets)
            async with asyncio.TaskGroup() as tasks:
                for line in self._lines.values():
                    tasks.create_task(self._serve(line))
        finally:
            for line in self._lines.values():
                await line.sender.close()

    def _give_up_what_nobody_gets(self) -> None:
        gone = "There is no receiver of that name any more."
        try:
            self._store.give_up_messages(set(self._lines), time.time(), gone)
        except StorageError as error:
            log.error("Messages to receivers that are gone still wait: %s", error)

    async def test(self, receiver: str) -> None:
        """Send a test message to a receiver, now.

        Raises:
            NotFound: There is no such receiver.
            Unavailable: It did not take it, or was sent as much as it may be.
        """
        line = self._lines.get(receiver)
        if line is None:
            raise NotFound(
                f"There is no receiver {receiver!r:.80}.", remedy="Receivers are in alerts.toml, on the hub."
            )
        wait_s = line.allowance.wait_s(time.monotonic())
        if wait_s > 0.0:
            raise Unavailable(f"{receiver} was sent as much as it may be; again in {wait_s:.0f} s.")
        await self._send(line, [probe_message(receiver, time.time())])

    async def _serve(self, line: _Line) -> None:
        while True:
            line.woken.clear()
            try:
                sleep_s = await self._send_due(line)
            except StorageError as error:
                log.error("Messages to %s wait: %s", line.receiver.name, error)
                sleep_s = AFTER_TROUBLE_S
            except Exception:  # whatever it is, the other receivers and the hub must go on
                log.exception("Sending to %s failed as it should not.", line.receiver.name)
                sleep_s = LONGEST_SLEEP_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(sleep_s):
                    await line.woken.wait()

    async def _send_due(self, line: _Line) -> float:
        """Send what may be sent, and return how long there is nothing more to do unless woken."""
        name, now_s = line.receiver.name, time.time()
        wait_s = line.allowance.wait_s(time.monotonic())
        due = await asyncio.to_thread(self._store.messages_due, name, now_s, limit=1)
        if due and wait_s <= 0.0:
            until_s = now_s + line.sender.gather_s  # what is being gathered goes with the first that is due
            batch = await asyncio.to_thread(
                self._store.messages_due, name, until_s, limit=line.sender.most_at_once
            )
            await self._try(line, batch)
            return 0.0
        if due:
            return wait_s
        next_s = await asyncio.to_thread(self._store.next_message_due_s, name)
        return LONGEST_SLEEP_S if next_s is None else min(LONGEST_SLEEP_S, max(0.0, next_s - now_s))

    async def _try(self, line: _Line, batch: Sequence[AlertMessage]) -> None:
        try:
            await self._send(line, batch)
        except MusterError as error:
            done = [self._failed(message, error, time.time()) for message in batch]
        else:
            now_s = time.time()
            done = [
                msgspec.structs.replace(message, outcome=Outcome.SENT, ended_at_s=now_s, error="")
                for message in batch
            ]
        self.counts.update(
            (line.receiver.kind, GIVEN_UP) for message in done if message.outcome is Outcome.GIVEN_UP
        )
        await asyncio.to_thread(self._store.save_messages, done)

    async def _send(self, line: _Line, batch: Sequence[AlertMessage]) -> None:
        line.allowance.take(time.monotonic())
        try:
            with span("alert delivery", receiver_kind=line.receiver.kind, messages=len(batch)):
                await line.sender.send(batch, time.time())
        except MusterError as error:
            self.counts[line.receiver.kind, FAILED] += len(batch)
            log.warning("%s was not told of %d alerts: %s", line.receiver.name, len(batch), error)
            raise
        except Exception as error:  # a fault of ours is a try that failed: others wait behind this batch
            self.counts[line.receiver.kind, FAILED] += len(batch)
            log.exception("Sending to %s failed as it should not.", line.receiver.name)
            raise Unavailable(
                f"{line.receiver.name} was not told by a fault of the hub ({type(error).__name__}).",
                remedy="The hub's log has the details.",
            ) from error
        self.counts[line.receiver.kind, SENT] += len(batch)

    def _failed(self, message: AlertMessage, error: MusterError, now_s: float) -> AlertMessage:
        tried = msgspec.structs.replace(message, attempts=message.attempts + 1, error=str(error))
        wait_s = retry_wait_s(tried.attempts, secrets.randbelow(1000) / 1000)
        if now_s + wait_s - message.created_at_s >= self._give_up_after_s:
            log.error("%s was given up after %d attempts: %s", message.key, tried.attempts, error)
            return msgspec.structs.replace(tried, outcome=Outcome.GIVEN_UP, ended_at_s=now_s)
        return msgspec.structs.replace(tried, due_at_s=now_s + wait_s)


SENT, FAILED, GIVEN_UP = "sent", "failed", "given_up"
OUTCOMES = (SENT, FAILED, GIVEN_UP)


class _Line:
    """One receiver: who sends to it, how fast, and what wakes its task."""

    def __init__(self, receiver: Receiver, sender: Sender) -> None:
        self.receiver = receiver
        self.sender = sender
        self.allowance = Allowance(receiver.most_per_minute, time.monotonic())
        self.woken = asyncio.Event()


def probe_message(receiver: str, now_s: float) -> AlertMessage:
    """Return a message that only says that messages arrive."""
    matter = finding(
        "test",
        receiver,
        severity=Severity.WARNING,
        title="a test",
        sentence="Somebody tests whether alerts arrive here. Nothing is wrong.",
        evidence=["`muster alerts test` was run"],
        command="muster alerts list",
        inspect="muster alerts list",
        path="/api/v1/alerts",
    ).matter
    alert = Alert(matter, State.RESOLVED, now_s, fired_at_s=now_s, ended_at_s=now_s)
    key = f"{alert.identity}/{receiver}/{secrets.token_hex(8)}"
    return AlertMessage(key, receiver, Occasion.TEST, alert, now_s, now_s)
