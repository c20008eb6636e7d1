"""The hub's one way to MQTT: at-least-once both ways, over paho-mqtt driven by asyncio.

What paho leaves open is closed here:

- paho acknowledges a message before the application has dealt with it. Here a message is acknowledged after
  the handler returned, so a hub that is killed in between gets it again from a broker that keeps sessions.
- paho's own loop uses ``select`` and fails with more than 1,024 open files. `hub.connection` drives its
  socket from asyncio (epoll).
- paho forgets its limit of messages in flight when it reconnects, and keeps a queue of its own in memory.
  Here every connection has a fresh paho client, and `HubMqtt.publish` holds the window: a message is either
  acknowledged by the broker or its sender is told.

Messages are handled one at a time in the order of arrival, and acknowledged in that order, as MQTT 3.1.1
section 4.6 demands. A message can come twice; handlers are idempotent.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import paho.mqtt.client as paho

from fleet.protocol.errors import BrokerUnavailable
from hub.connection import Connection

FIRST_BACKOFF_S, GREATEST_BACKOFF_S = 0.2, 15.0
STABLE_AFTER_S = 10.0
"""A connection that lived this long was a good one: the waits start from the shortest again."""

MAX_WAITING_MESSAGES = 4096
MAX_WAITING_BYTES = 64 * 1024 * 1024

log = logging.getLogger(__name__)
_Handler = Callable[[str, bytes], Awaitable[None]]


class _Received(NamedTuple):
    connection: Connection
    message: paho.MQTTMessage


class HubMqtt:
    """The hub's way to the broker: one connection after the other while `run` runs.

    Args:
        host: The broker's host name or address.
        port: Its TCP port.
        username: The hub's account; also its client id, so that its session is found again.
        password: The account's password.
        on_message: Called with topic and payload of each message from a device, one at a time. What it
            raises is logged, and the message counts as handled: to set it aside is the handler's task.
        publish_timeout_s: How long `publish` tries.
        send_window: Most messages that were sent and not yet acknowledged by the broker.
    """

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        password: str,
        on_message: _Handler,
        *,
        publish_timeout_s: float = 10.0,
        send_window: int = 32,
    ) -> None:
        self._host, self._port = host, port
        self._username, self._password = username, password
        self._on_message = on_message
        self._publish_timeout_s = publish_timeout_s
        self._send_window = send_window
        self._window = asyncio.Semaphore(send_window)
        self._inbox: asyncio.Queue[_Received] = asyncio.Queue()
        self._inbox_bytes = 0
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._last_failure = "the connection was not tried yet"

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection and the subscription."""
        return self._up.is_set()

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait until `connected`.

        Raises:
            BrokerUnavailable: It was not so in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError as error:
            raise self._unavailable() from error

    async def run(self) -> None:
        """Stay connected and handle messages until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._handle_messages())
            tasks.create_task(self._stay_connected())

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1; return when the broker has acknowledged it.

        The message is sent again on the next connection if one breaks, so it can arrive twice.

        Raises:
            BrokerUnavailable: The broker did not acknowledge it in time. It may have arrived all the same.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._publish_timeout_s), self._window:
                acknowledged = False
                while not acknowledged:
                    await self._up.wait()
                    connection = self._connection
                    acknowledged = connection is not None and await connection.publish(topic, payload)
                    if not acknowledged:
                        await asyncio.sleep(0)  # lets `_stay_connected` see that the connection has ended
        except TimeoutError as error:
            if connection is not None and connection is self._connection:
                # The broker stopped acknowledging. The message must not stay in paho's queue.
                connection.close()
            raise self._unavailable() from error

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            connection = Connection(self._receive, self._send_window)
            try:
                await connection.open(self._host, self._port, self._username, self._password)
                started_s = loop.time()
                self._connection = connection
                self._up.set()
                self._last_failure = await connection.closed()
                if loop.time() - started_s > STABLE_AFTER_S:
                    backoff_s = FIRST_BACKOFF_S
            except BrokerUnavailable as error:
                self._last_failure = error.message
            finally:
                self._up.clear()
                self._connection = None
                connection.close()
            log.warning("Not connected to the broker: %s", self._last_failure)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, hides nothing
            backoff_s = min(2 * backoff_s, GREATEST_BACKOFF_S)

    def _receive(self, connection: Connection, message: paho.MQTTMessage) -> None:
        if (
            self._inbox.qsize() >= MAX_WAITING_MESSAGES
            or self._inbox_bytes + len(message.payload) > MAX_WAITING_BYTES
        ):
            connection.close()  # unacknowledged, so it comes again; until then what waits is worked off
            return
        self._inbox_bytes += len(message.payload)
        self._inbox.put_nowait(_Received(connection, message))

    async def _handle_messages(self) -> None:
        while True:
            connection, message = await self._inbox.get()
            self._inbox_bytes -= len(message.payload)
            try:
                await self._on_message(message.topic, bytes(message.payload))
            except Exception:
                log.exception("A message on %s could not be handled.", message.topic)
            connection.acknowledge(message)

    def _unavailable(self) -> BrokerUnavailable:
        why = "it does not acknowledge" if self.connected else self._last_failure
        return BrokerUnavailable(
            f"The broker at {self._host}:{self._port} cannot be used: {why}.",
            remedy="Check that it runs and that the hub's account is in its accounts file.",
        )
