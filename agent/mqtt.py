"""The device's lasting link to the broker: one connection after the other (see `agent.connection`).

Nothing is published without a connection, and no more at once than the send window holds. Subscriptions are
made again with every connection: a broker may forget them. After a packet that was too large the next
connection begins a clean session, or the broker would send it again; what else the session held comes by
itself (`Hello`, records).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.backoff import Backoff
from agent.connection import Connection, Handler, new_client
from fleet.protocol.enrolment import BrokerAccess
from fleet.protocol.errors import BrokerUnavailable, MessageTooLarge
from fleet.protocol.messages import MAX_PACKET_SIZE_BYTES

log = logging.getLogger(__name__)

SEND_WINDOW = 16
"""Messages published and not yet acknowledged, at most."""

LASTING_S = 10.0
"""A connection that ends sooner does not count as a success."""


class Link:
    """The device's lasting link to the broker: it reconnects for as long as `run` runs.

    Args:
        device_id: Also the MQTT client id, so that no account can take another's session.
        access: Where the broker is, and the account.
        will: Topic and payload that the broker publishes when the device vanishes.
        handler: Gets each message's topic and payload, and what to call when it was processed. It must not
            raise.
        on_connected: Awaited after each connection, when all subscriptions stand.
        on_error: Told of packets that were refused.
        backoff: The waits between attempts to connect.
        keepalive_s: How long the line may be silent before it is tried. A peer that has vanished without a
            word is noticed in twice the time.
    """

    def __init__(
        self,
        device_id: str,
        access: BrokerAccess,
        *,
        will: tuple[str, bytes],
        handler: Handler,
        on_connected: Callable[[], Awaitable[None]],
        on_error: Callable[[MessageTooLarge], None],
        backoff: Backoff,
        keepalive_s: int = 30,
    ) -> None:
        self._device_id = device_id
        self._access = access
        self._will = will
        self._handler = handler
        self._on_connected = on_connected
        self._on_error = on_error
        self._backoff = backoff
        self._keepalive_s = keepalive_s
        self._window = asyncio.Semaphore(SEND_WINDOW)
        self._subscriptions: dict[str, None] = {}  # in the order of subscribing
        self._connection: Connection | None = None
        self._ready = asyncio.Event()
        self._clean_session = False

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the current connection and its subscriptions."""
        return self._ready.is_set()

    async def wait_connected(self) -> None:
        """Wait until there is a connection, for as long as it takes."""
        await self._ready.wait()

    async def run(self) -> None:
        """Keep a connection until cancelled, then say goodbye."""
        while True:
            try:
                await self._hold_connection()
            except BrokerUnavailable as error:
                log.warning("%s", error)
            await asyncio.sleep(self._backoff.next_s())

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish one message at QoS 1, when the send window has room, and wait for its acknowledgement.

        Raises:
            BrokerUnavailable: There is no connection, or it ended before the acknowledgement.
        """
        async with self._window:
            await self._current().publish(topic, payload)

    def is_subscribed(self, pattern: str) -> bool:
        """Tell whether a subscription stands, or will stand with the next connection."""
        return pattern in self._subscriptions

    async def subscribe(self, pattern: str) -> None:
        """Subscribe now and after every reconnection; wait for the acknowledgement if there is a connection.

        Raises:
            BrokerUnavailable: There is no connection; the subscription will be made with the next.
        """
        self._subscriptions[pattern] = None
        await self._current().subscribe(pattern)

    async def unsubscribe(self, pattern: str) -> None:
        """End a subscription; without a connection the session ends it at the next one."""
        self._subscriptions.pop(pattern, None)
        try:
            await self._current().unsubscribe(pattern)
        except BrokerUnavailable:
            log.debug("Unsubscribed without a connection.")

    def _current(self) -> Connection:
        if self._connection is None:
            raise BrokerUnavailable("There is no connection to the broker.")
        return self._connection

    async def _hold_connection(self) -> None:
        client = new_client(self._device_id, self._access, self._will, clean_session=self._clean_session)
        connection = Connection(client, self._handler, self._keepalive_s)
        try:
            await connection.open(self._access)
            self._clean_session = False
            self._connection = connection
            for pattern in list(self._subscriptions):
                await connection.subscribe(pattern)
            self._ready.set()
            since_s = asyncio.get_running_loop().time()
            log.info("Connected to the broker at %s:%d.", self._access.host, self._access.port)
            await self._on_connected()
            await connection.lost
            log.warning("Lost the connection to the broker.")
            # Two devices under one name throw each other out: a short connection does not count as success.
            if asyncio.get_running_loop().time() - since_s >= LASTING_S:
                self._backoff.reset()
        except asyncio.CancelledError:
            await connection.close()
            raise
        finally:
            self._ready.clear()
            self._connection = None
            connection.abort("lost")
            if client.oversized_bytes:
                self._clean_session = True
                size = f"{client.oversized_bytes} bytes was refused; {MAX_PACKET_SIZE_BYTES} are allowed"
                self._on_error(MessageTooLarge(f"A packet of {size}."))
