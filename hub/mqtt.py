"""The hub's one way to MQTT: at-least-once both ways, in batches.

- What arrives while a batch is handled waits and becomes the next batch: up to `BATCH_MESSAGES` and
  `BATCH_BYTES`, gathered for `GATHER_S`. Handling many messages at once costs little more than handling one.
- A batch is acknowledged to the broker, in the order of arrival as MQTT 3.1.1 section 4.6 demands, after the
  handler returned. A hub that is killed in between gets it again from a broker that keeps sessions. A message
  can come twice; handlers are idempotent.
- While too much waits, nothing is read from the socket: the broker keeps the rest, the hub's memory stays
  bounded. A handler must therefore not wait for a `HubMqtt.publish`: its acknowledgement may not be read.
- `HubMqtt.publish` (QoS 1) holds a window: a message is either acknowledged by the broker or its sender is
  told. `HubMqtt.send` (QoS 0) is for what its receiver asks for again if it does not come, such as the
  acknowledgements of records.

`hub.mqtt_packets` has the bytes, `hub.connection` one connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from fleet.protocol.errors import BrokerUnavailable
from hub.connection import Connection
from hub.mqtt_packets import Published

FIRST_BACKOFF_S, GREATEST_BACKOFF_S = 0.2, 15.0
STABLE_AFTER_S = 10.0
"""A connection that lived this long was a good one: the waits start from the shortest again."""

GATHER_S = 0.003
BATCH_MESSAGES, BATCH_BYTES = 4096, 8 * 1024 * 1024
WAITING_MESSAGES, WAITING_BYTES = 2 * BATCH_MESSAGES, 4 * BATCH_BYTES
"""More than this does not wait, beside what the socket gave at once."""

log = logging.getLogger(__name__)
Handler = Callable[[Sequence[Published]], Awaitable[None]]


class _Arrived(NamedTuple):
    connection: Connection
    message: Published


class HubMqtt:
    """The hub's way to the broker: one connection after the other while `run` runs.

    Args:
        host: The broker's host name or address.
        port: Its TCP port.
        username: The hub's account; also its client id, so that its session is found again.
        password: The account's password.
        on_messages: Called with the messages of devices, a batch at a time. If it raises, it is called for
            each of them alone; if it raises again, that message counts as handled: to set bad ones aside is
            its task.
        publish_timeout_s: How long `publish` tries.
        send_window: Most messages that were sent and not yet acknowledged by the broker.
    """

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        password: str,
        on_messages: Handler,
        *,
        publish_timeout_s: float = 10.0,
        send_window: int = 32,
    ) -> None:
        self._host, self._port = host, port
        self._username, self._password = username, password
        self._on_messages = on_messages
        self._publish_timeout_s = publish_timeout_s
        self._window = asyncio.Semaphore(send_window)
        self._arrived: deque[_Arrived] = deque()
        self._waiting_bytes = 0
        self._something_waits = asyncio.Event()
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._last_failure = "the connection was not tried yet"
        self.batches = 0

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection and the subscription."""
        return self._up.is_set()

    @property
    def waiting(self) -> int:
        """How many messages wait to be handled."""
        return len(self._arrived)

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
            if connection is not None and connection is self._connection and not connection.paused:
                connection.close("the broker does not acknowledge")
            raise self._unavailable() from error

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish topics and payloads at QoS 0; what finds no connection is lost."""
        if self._connection is not None:
            await self._connection.send(messages)

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            connection = Connection(self._receive)
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

    def _receive(self, connection: Connection, messages: Sequence[Published]) -> None:
        if self._is_full():  # another connection, while what the one before it brought still waits
            connection.close("the hub has not handled what came before")
            return
        self._arrived.extend([_Arrived(connection, message) for message in messages])
        self._waiting_bytes += sum([len(message.topic) + len(message.payload) for message in messages])
        self._something_waits.set()
        connection.pause(self._is_full())

    def _is_full(self) -> bool:
        return len(self._arrived) >= WAITING_MESSAGES or self._waiting_bytes >= WAITING_BYTES

    async def _handle_messages(self) -> None:
        while True:
            await self._something_waits.wait()
            if len(self._arrived) < BATCH_MESSAGES:
                await asyncio.sleep(GATHER_S)
            connection, messages = self._next_batch()
            try:
                await self._on_messages(messages)
            except Exception:
                log.exception("%d messages could not be handled together.", len(messages))
                await self._handle_each(messages)
            self.batches += 1
            connection.acknowledge(messages)

    async def _handle_each(self, messages: Sequence[Published]) -> None:
        """Handle messages one at a time, so that one which meets a fault in the hub takes no other along."""
        for message in messages:
            try:
                await self._on_messages([message])
            except Exception:
                log.exception("A message on %.120r could not be handled.", message.topic)

    def _next_batch(self) -> tuple[Connection, list[Published]]:
        """Take what waits and came over the same connection, up to the limits of a batch."""
        connection, size_bytes = self._arrived[0].connection, 0
        messages: list[Published] = []
        while self._arrived and self._arrived[0].connection is connection:
            if messages and (len(messages) >= BATCH_MESSAGES or size_bytes >= BATCH_BYTES):
                break
            message = self._arrived.popleft().message
            messages.append(message)
            size_bytes += len(message.topic) + len(message.payload)  # a topic may have 64 KiB
        self._waiting_bytes -= size_bytes
        if not self._arrived:
            self._something_waits.clear()
        connection.pause(self._is_full())
        return connection, messages

    def _unavailable(self) -> BrokerUnavailable:
        why = "it does not acknowledge" if self.connected else self._last_failure
        return BrokerUnavailable(
            f"The broker at {self._host}:{self._port} cannot be used: {why}.",
            remedy="Check that it runs and that the hub's account is in its accounts file.",
        )
