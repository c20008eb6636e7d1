"""Sending assignments: what the store desires, signed by the director, until the device accepts it.

The store raises a device's sequence number in the transaction that changes its desired state, so the
desired state is its own outbox: whatever is lost, here or on the way, is sent again because the device has
not accepted the number. One sequence number never stands for two contents. Assignments are read, signed and
published many at a time: what takes long, above all the broker's acknowledgement, is waited for once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from fleet.protocol.assignment import Assignment
from fleet.protocol.errors import MusterError, Unavailable
from fleet.protocol.topics import Down, down
from hub.store.protocols import DeviceStore
from hub.store.rows import Desired
from hub.trust.director import Director

log = logging.getLogger(__name__)

AT_ONCE = 256
"""Assignments that are read, signed and published together."""

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

    async def send(self, device_ids: Iterable[str]) -> None:
        """Send devices their current assignments now; a device that there is not is left out.

        Raises:
            Unavailable: The broker does not take them all; `send_due` tries again.
            StorageError: What they should run cannot be read.
        """
        waiting = iter(device_ids)
        while batch := list(islice(waiting, AT_ONCE)):
            known = {device_id: self._sent[device_id] for device_id in batch if device_id in self._sent}
            ready = await asyncio.to_thread(self._made, batch, known)
            now_s = time.time()
            self._sent |= {device_id: sent._replace(sent_s=now_s) for device_id, sent in ready.items()}
            publishing = (
                self._publish(down(device_id, Down.ASSIGNMENT), sent.message)
                for device_id, sent in ready.items()
            )
            outcomes = await asyncio.gather(*publishing, return_exceptions=True)
            failed = dict(zip(ready, outcomes, strict=True))
            for device_id, error in failed.items():
                if error is not None:
                    self._sent[device_id] = ready[device_id]._replace(sent_s=0.0)
            for error in failed.values():
                if error is not None:
                    raise error

    async def send_due(self) -> None:
        """Send connected devices every assignment that is new, or was not accepted for a while.

        A device that is away gets its assignment when it announces itself: one, not a queue of them.
        """
        behind = await asyncio.to_thread(self._store.behind)
        now_s = time.time()
        due = [
            device_id
            for device_id, sequence in behind.items()
            if (sent := self._sent.get(device_id)) is None
            or sent.sequence != sequence
            or now_s - sent.sent_s >= self._resend_s
        ]
        try:
            await self.send(due)
        except Unavailable:
            return
        for device_id in self._sent.keys() - behind.keys():
            del self._sent[device_id]

    def _made(self, device_ids: Iterable[str], known: Mapping[str, _Sent]) -> dict[str, _Sent]:
        """Read and sign assignments, but for those that were signed lately."""
        made: dict[str, _Sent] = {}
        now_s = time.time()
        for device_id, desired in self._store.desired_of(device_ids).items():
            if desired.sequence == 0:
                continue
            sent = known.get(device_id)
            if (
                sent is None
                or sent.sequence != desired.sequence
                or now_s - sent.issued_s > self._lifetime_s / 2
            ):
                try:
                    sent = _Sent(desired.sequence, now_s, self._signed(device_id, desired, now_s))
                except MusterError as error:
                    log.error("The assignment of %s was not sent: %s", device_id, error)
                    continue
            made[device_id] = sent
        return made

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
