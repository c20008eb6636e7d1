"""What a device says of itself while it is connected: that it is there, what it can run, what it runs.

``Hello`` and ``Presence`` follow each connection; ``Hello`` is repeated, since the hub answers it with an
assignment that was lost. ``StateReport`` is the heartbeat. All of it is said again sooner or later, so
nothing of it is kept where it cannot be sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from agent.mqtt import Link
from agent.settings import Settings
from fleet.protocol.board import BoardWindow
from fleet.protocol.capture import SampleCounts
from fleet.protocol.errors import BrokerUnavailable
from fleet.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    Hello,
    ModelState,
    Presence,
    StateReport,
    encode,
)
from fleet.protocol.topics import Up, up

REPORT_DELAY_S = 0.05
"""Changes of state that come together are told in one heartbeat."""
GOODBYE_S = 0.3
"""How long the broker has to take the last message, of the time that an orderly end may take."""


def last_will(device_id: str) -> tuple[str, bytes]:
    """Return topic and message by which the broker tells that a device's connection has ended."""
    return up(device_id, Up.PRESENCE), encode(Presence(online=False))


class Announcer:
    """Tells the hub of this device.

    Args:
        device_id: Its name.
        link: The connection to the broker.
        settings: How often what is said again.
        sequence: Gives the highest sequence number accepted.
        capabilities: Tells what the device can run.
        states: Gives the state of each model.
        waiting_records: Tells how many records wait in the outbox.
        board: Gives what was read of the board lately; None if nothing was yet.
        samples: Tells how capturing goes; None where nothing may be captured.
    """

    def __init__(
        self,
        device_id: str,
        link: Link,
        settings: Settings,
        *,
        sequence: Callable[[], int],
        capabilities: Callable[[], Capabilities],
        states: Callable[[], tuple[ModelState, ...]],
        waiting_records: Callable[[], int],
        board: Callable[[], BoardWindow | None],
        samples: Callable[[], SampleCounts | None],
    ) -> None:
        self._device_id = device_id
        self._link = link
        self._settings = settings
        self._sequence = sequence
        self._capabilities = capabilities
        self._states = states
        self._waiting_records = waiting_records
        self._board = board
        self._samples = samples
        self._changed = asyncio.Event()

    async def announce(self) -> None:
        """Say that the device is there and what it can run.

        Raises:
            BrokerUnavailable: There is no connection.
        """
        await self._say_hello()
        await self._publish(Up.PRESENCE, Presence(online=True))

    async def keep_announcing(self) -> None:
        """Repeat what the device can run: an assignment that was lost or refused comes again by it."""
        while True:
            await asyncio.sleep(self._settings.hello_interval_s)
            with suppress(BrokerUnavailable):
                await self._say_hello()

    def report_soon(self) -> None:
        """Send the heartbeat before it is due: the state has changed."""
        self._changed.set()

    async def keep_reporting(self) -> None:
        """Send the heartbeat, at its interval and after every change."""
        while True:
            try:
                async with asyncio.timeout(self._settings.heartbeat_interval_s):
                    await self._changed.wait()
                await asyncio.sleep(REPORT_DELAY_S)
            except TimeoutError:
                pass
            self._changed.clear()
            if self._link.is_connected:
                report = StateReport(
                    time.time(),
                    self._sequence(),
                    self._states(),
                    self._waiting_records(),
                    self._board() or msgspec.UNSET,
                    self._samples() or msgspec.UNSET,
                )
                with suppress(BrokerUnavailable):  # the next one tells the same
                    await self._publish(Up.STATE, report)

    async def say_goodbye(self) -> None:
        """Say that the device goes, if the broker takes it in time; else the last will says it."""
        with suppress(BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._publish(Up.PRESENCE, Presence(online=False))

    async def _say_hello(self) -> None:
        await self._publish(Up.HELLO, Hello(PROTOCOL_VERSION, self._sequence(), self._capabilities()))

    async def _publish(self, channel: Up, message: msgspec.Struct) -> None:
        await self._link.publish(up(self._device_id, channel), encode(message))
