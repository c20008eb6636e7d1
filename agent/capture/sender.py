"""Sending captured samples: the oldest one, until the hub acknowledges it, and only when nothing else waits.

Reports, incidents and windows go first: while any record is in the outbox, no sample is sent. One sample is
under way at a time, so that they take no more of a thin line than is free.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from agent.capture.spool import Spool
from agent.mqtt import Link
from fleet.protocol.errors import BrokerUnavailable, InvalidMessage, StorageError
from fleet.protocol.messages import Ack, decode, encode
from fleet.protocol.samples import SampleMessage, read_sample
from fleet.protocol.topics import Up, up

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
"""How long to wait while records go first."""


class SampleSender:
    """Carries samples to the hub.

    Args:
        device_id: This device.
        spool: Where samples are.
        link: The way to the broker.
        waiting_records: Tells how many records wait in the outbox.
        resend_s: How long an acknowledgement may take before a sample is sent again.
    """

    def __init__(
        self,
        device_id: str,
        spool: Spool,
        link: Link,
        *,
        waiting_records: Callable[[], int],
        resend_s: float,
    ) -> None:
        self._topic = up(device_id, Up.SAMPLE)
        self._spool = spool
        self._link = link
        self._waiting_records = waiting_records
        self._resend_s = resend_s
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at the spool: a sample was put in."""
        self._wake.set()

    def on_ack(self, payload: bytes) -> bool:
        """Take an acknowledgement, if it is one of samples; tell whether it was.

        Raises:
            InvalidInput: It cannot be understood.
            StorageError: It cannot be written; the hub will be sent the samples again.
        """
        if not self._spool.stream:
            return False
        ack = decode(payload, Ack)
        if ack.stream != self._spool.stream:
            return False
        self._spool.forget(*ack.numbers)
        self._wake.set()
        return True

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._link.wait_connected()
            self._wake.clear()
            try:
                wait_s = await self._send_oldest()
            except StorageError as error:
                log.warning("%s", error)
                wait_s = self._resend_s
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _send_oldest(self) -> float | None:
        """Send a sample, if it may go now; return when to look again, None for when something happens."""
        entry = self._spool.oldest()
        if entry is None:
            return None
        if self._waiting_records():
            return LOOK_AGAIN_S
        try:
            message = encode(SampleMessage(self._spool.stream, entry.number, read_sample(entry.body)))
        except InvalidMessage as error:
            log.warning("Sample %d is dropped: %s", entry.number, error)
            self._spool.forget(entry.number)
            return 0.0
        with suppress(BrokerUnavailable):
            await self._link.publish(self._topic, message)
        return self._resend_s
