"""Sending assignments: what the store desires, signed by the director, until the device accepts it.

The store raises a device's sequence number in the transaction that changes its desired state, so the
desired state is its own outbox: whatever is lost, here or on the way, is sent again because the device has
not accepted the number. One sequence number never stands for two contents.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fleet.protocol.assignment import Assignment
from fleet.protocol.errors import MusterError, Unavailable
from fleet.protocol.topics import Down, down
from hub.store.protocols import DeviceStore
from hub.store.rows import Desired
from hub.trust.director import Director

log = logging.getLogger(__name__)

Publish = Callable[[str, bytes], Awaitable[None]]


class _Sent(NamedTuple):
    """An assignment that was sent: sent again as the same bytes, so that a device knows it for the same."""

    sequence: int
    issued_s: float
    message: bytes
    sent_s: float = 0.0


class AssignmentSender:
    """Signs and publishes assignments.

    Args:
        store: Knows what devices should run and what they have accepted.
        director: Signs.
        publish: Publishes a payload on a topic.
        lifetime_s: How long an assignment may be accepted.
        resend_s: Least time between two sendings of the same assignment.
    """

    def __init__(
        self, store: DeviceStore, director: Director, publish: Publish, *, lifetime_s: float, resend_s: float
    ) -> None:
        self._store = store
        self._director = director
        self._publish = publish
        self._lifetime_s = lifetime_s
        self._resend_s = resend_s
        self._sent: dict[str, _Sent] = {}

    async def send(self, device_id: str) -> None:
        """Send the device its current assignment now.

        Raises:
            NotFound: There is no such device.
            Unavailable: The broker does not take it; `send_due` tries again.
        """
        desired = await asyncio.to_thread(self._store.desired, device_id)
        if desired.sequence == 0:
            return
        now_s = time.time()
        sent = self._sent.get(device_id)
        if sent is None or sent.sequence != desired.sequence or now_s - sent.issued_s > self._lifetime_s / 2:
            sent = _Sent(desired.sequence, now_s, self._signed(device_id, desired, now_s))
        self._sent[device_id] = sent._replace(sent_s=now_s)
        await self._publish(down(device_id, Down.ASSIGNMENT), sent.message)

    async def send_due(self) -> None:
        """Send connected devices every assignment that is new, or was not accepted for a while.

        A device that is away gets its assignment when it announces itself: one, not a queue of them.
        """
        behind = await asyncio.to_thread(self._store.behind)
        for device_id, sequence in behind.items():
            sent = self._sent.get(device_id)
            if sent and sent.sequence == sequence and time.time() - sent.sent_s < self._resend_s:
                continue
            try:
                await self.send(device_id)
            except Unavailable:
                return
            except MusterError as error:
                log.error("The assignment of %s was not sent: %s", device_id, error)
        for device_id in self._sent.keys() - behind.keys():
            del self._sent[device_id]

    def _signed(self, device_id: str, desired: Desired, now_s: float) -> bytes:
        return self._director.sign(
            Assignment(
                device_id=device_id,
                sequence=desired.sequence,
                issued_at_s=int(now_s),
                expires_at_s=int(now_s + self._lifetime_s),
                models=desired.orders,
                wishes=desired.wishes,
            )
        )
