"""Sending the outbox: again and again until acknowledged, a bounded number under way, at a bounded rate.

Reports and incidents go before telemetry windows, each oldest first. A few places are theirs alone, so that
windows whose acknowledgements are lost do not keep them waiting. The rate is what keeps a device that was
away for days, or a fleet that comes back at once, from flooding the hub.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from agent.backoff import Backoff
from agent.mqtt import Link
from agent.settings import Settings
from agent.telemetry.outbox import Entry, Outbox
from agent.telemetry.rate import TokenBucket
from fleet.protocol.errors import BrokerUnavailable, InvalidMessage, MusterError, StorageCorrupt, StorageError
from fleet.protocol.messages import Ack, decode, encode
from fleet.protocol.topics import Up, up

log = logging.getLogger(__name__)

URGENT_PLACES = 8
"""How many reports and incidents may be under way beside as many windows as are allowed."""


class _Flight(NamedTuple):
    """A record that was sent and not acknowledged by the hub."""

    due_s: float
    backoff: Backoff


class Sender:
    """Carries records to the hub.

    Args:
        device_id: This device.
        outbox: Where records are.
        link: The way to the broker.
        settings: How many at once, how many a second, and when again.
        on_incident: Told of a record that is lost.
    """

    def __init__(
        self,
        device_id: str,
        outbox: Outbox,
        link: Link,
        settings: Settings,
        *,
        on_incident: Callable[[MusterError], None],
    ) -> None:
        self._topic = up(device_id, Up.RECORD)
        self._outbox = outbox
        self._link = link
        self._settings = settings
        self._on_incident = on_incident
        self._flights: dict[int, _Flight] = {}
        self._wake = asyncio.Event()
        self._bucket = TokenBucket(settings.records_per_second, settings.records_in_flight, _now_s())

    def wake(self) -> None:
        """Look at the outbox: something was put in."""
        self._wake.set()

    def on_connected(self) -> None:
        """Send again what was under way over the connection before."""
        self._flights.clear()
        self._wake.set()

    def on_ack(self, payload: bytes) -> None:
        """Take the hub's acknowledgement.

        Raises:
            InvalidInput: It cannot be understood.
            StorageError: It cannot be written; the hub will be sent the records again.
        """
        ack = decode(payload, Ack)
        self._outbox.acknowledge(ack.stream, ack.numbers)
        for number in ack.numbers:
            self._flights.pop(number, None)
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._link.wait_connected()
            self._wake.clear()
            try:
                await self._send_due()
            except StorageError as error:
                log.warning("%s", error)
            try:
                async with asyncio.timeout(self._until_due_s()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _send_due(self) -> None:
        now_s = _now_s()
        waiting = {number for number, flight in self._flights.items() if flight.due_s > now_s}
        free = self._settings.records_in_flight - len(waiting)
        allowed = min(free + URGENT_PLACES, self._bucket.available(now_s))
        entries = self._outbox.take(allowed, beside=waiting, windows=free) if allowed > 0 else []
        self._bucket.take(len(entries), now_s)
        sending: list[Awaitable[None]] = []
        for entry in entries:
            try:
                message = encode(self._outbox.record(entry))
            except InvalidMessage as error:
                self._give_up(entry, error)
                continue
            flight = self._flights.get(entry.number)
            backoff = flight.backoff if flight else self._new_backoff()
            self._flights[entry.number] = _Flight(now_s + backoff.next_s(), backoff)
            sending.append(self._send(entry.number, message))
        await asyncio.gather(*sending)

    async def _send(self, number: int, message: bytes) -> None:
        try:
            await self._link.publish(self._topic, message)
        except BrokerUnavailable:
            log.debug("Record %d waits for the next connection.", number)

    def _give_up(self, entry: Entry, error: InvalidMessage) -> None:
        """Drop a record whose bytes are damaged: it can never be sent, and would hold a place for ever."""
        self._outbox.acknowledge(entry.stream, (entry.number,))
        self._on_incident(StorageCorrupt(f"Record {entry.number} of the outbox is lost. {error}"))
        self._wake.set()

    def _until_due_s(self) -> float:
        now_s = _now_s()
        wait_s = self._bucket.wait_s(now_s)
        if wait_s > 0:
            return wait_s
        dues_s = (flight.due_s for flight in self._flights.values())
        return max(0.01, min(dues_s, default=now_s + self._settings.resend_interval_s) - now_s)

    def _new_backoff(self) -> Backoff:
        # Backoff draws from the upper half of its first wait, so twice the interval makes it the least.
        first_s = 2 * self._settings.resend_interval_s
        return Backoff(first_s, max(self._settings.resend_limit_s, first_s))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
