"""The hub's one way to MQTT: at-least-once both ways, over paho-mqtt driven by asyncio.

What paho leaves open is closed here:

- paho acknowledges a message before the application has dealt with it. Here a message is acknowledged after
  the handler returned, so a hub that is killed in between gets it again from a broker that keeps sessions.
- paho's own loop uses ``select`` and fails with more than 1,024 open files. Here its socket callbacks feed
  asyncio (epoll), without threads except for the name lookup and TCP connect, which block in paho.
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
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from fleet.protocol.errors import BrokerUnavailable
from fleet.protocol.topics import HUB_SUBSCRIPTION

KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 10.0
FIRST_BACKOFF_S, GREATEST_BACKOFF_S = 0.2, 15.0
STABLE_AFTER_S = 10.0
"""A connection that lived this long was a good one: the next attempt is immediate."""

MAX_WAITING_MESSAGES = 4096
MAX_WAITING_BYTES = 64 * 1024 * 1024

_log = logging.getLogger(__name__)
_Handler = Callable[[str, bytes], Awaitable[None]]


class _Received(NamedTuple):
    link: _Link
    message: paho.MQTTMessage


class HubMqtt:
    """The hub's connection to the broker, kept alive while `run` runs.

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
        self._link: _Link | None = None
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
        link: _Link | None = None
        try:
            async with asyncio.timeout(self._publish_timeout_s), self._window:
                acknowledged = False
                while not acknowledged:
                    await self._up.wait()
                    link = self._link
                    acknowledged = link is not None and await link.publish(topic, payload)
                    if not acknowledged:
                        await asyncio.sleep(0)  # lets `_stay_connected` see that the link has ended
        except TimeoutError as error:
            if link is not None and link is self._link:
                link.close()  # a broker that stopped acknowledging; the message must not stay in paho's queue
            raise self._unavailable() from error

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            link = _Link(self._receive, self._send_window)
            try:
                await link.open(self._host, self._port, self._username, self._password)
                started_s = loop.time()
                self._link = link
                self._up.set()
                self._last_failure = await link.closed()
                if loop.time() - started_s > STABLE_AFTER_S:
                    backoff_s = FIRST_BACKOFF_S
            except BrokerUnavailable as error:
                self._last_failure = error.message
            finally:
                self._up.clear()
                self._link = None
                link.close()
            _log.warning("Not connected to the broker: %s", self._last_failure)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, hides nothing
            backoff_s = min(2 * backoff_s, GREATEST_BACKOFF_S)

    def _receive(self, link: _Link, message: paho.MQTTMessage) -> None:
        if (
            self._inbox.qsize() >= MAX_WAITING_MESSAGES
            or self._inbox_bytes + len(message.payload) > MAX_WAITING_BYTES
        ):
            link.close()  # unacknowledged, so it comes again; until then what waits is worked off
            return
        self._inbox_bytes += len(message.payload)
        self._inbox.put_nowait(_Received(link, message))

    async def _handle_messages(self) -> None:
        while True:
            link, message = await self._inbox.get()
            self._inbox_bytes -= len(message.payload)
            try:
                await self._on_message(message.topic, bytes(message.payload))
            except Exception:
                _log.exception("A message on %s could not be handled.", message.topic)
            link.acknowledge(message)

    def _unavailable(self) -> BrokerUnavailable:
        why = "it does not acknowledge" if self.connected else self._last_failure
        return BrokerUnavailable(
            f"The broker at {self._host}:{self._port} cannot be used: {why}.",
            remedy="Check that it runs and that the hub's account is in its accounts file.",
        )


class _Link:
    """One connection: a paho client whose socket is served by asyncio. Never opened twice.

    Args:
        receive: Called with each message that arrives.
        window: Most messages in flight.
    """

    def __init__(self, receive: Callable[[_Link, paho.MQTTMessage], None], window: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._window = window
        self._client: paho.Client | None = None
        self._sock: Any = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[str] = self._loop.create_future()
        self._waiters: dict[int, asyncio.Future[bool]] = {}
        self._upkeep: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int, username: str, password: str) -> None:
        """Connect and subscribe.

        Raises:
            BrokerUnavailable: The broker cannot be reached, refuses, or does not answer in time.
        """
        client = self._client = self._new_client(username, password)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.to_thread(self._connect, client, host, port)
                self._serve_socket(client)
                await self._ready
        except (OSError, TimeoutError, ValueError) as error:
            raise BrokerUnavailable(
                f"{host}:{port} cannot be reached ({error or 'no answer in time'})"
            ) from error

    async def publish(self, topic: str, payload: bytes) -> bool:
        """Publish; return True once acknowledged, False if the connection closed before."""
        if self._client is None or self._closed.done():
            return False
        mid = self._client.publish(topic, payload, qos=1).mid
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters[mid] = waiter
        try:
            return await waiter
        finally:
            self._waiters.pop(mid, None)

    def acknowledge(self, message: paho.MQTTMessage) -> None:
        """Tell the broker that the message was handled; nothing happens if the connection is gone."""
        if self._client is not None and not self._closed.done():
            self._client.ack(message.mid, message.qos)

    async def closed(self) -> str:
        """Wait until the connection has ended; return why."""
        return await asyncio.shield(self._closed)

    def close(self) -> None:
        """End the connection; to do so twice does no harm."""
        self._end("the hub closed the connection")
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(OSError, ValueError):
            client.disconnect()
            client.loop_write()
        sock = client.socket()
        if sock is not None:
            self._forget_socket()
            sock.close()

    def _new_client(self, username: str, password: str) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=username, clean_session=False, manual_ack=True
        )
        client.username_pw_set(username, password)
        client.max_inflight_messages_set(self._window)
        client.connect_timeout = CONNECT_TIMEOUT_S / 2
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = lambda _client, _userdata, message: self._receive(self, message)
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_socket_close = lambda _client, _userdata, _sock: self._forget_socket()
        client.on_socket_register_write = lambda _client, _userdata, _sock: self._start_writing()
        client.on_socket_unregister_write = lambda _client, _userdata, _sock: self._stop_writing()
        return client

    def _connect(self, client: paho.Client, host: str, port: int) -> None:
        """Connect, in a thread; if `close` came first, leave no socket behind."""
        client.connect(host, port, KEEPALIVE_S)
        sock = client.socket()
        if self._client is None and sock is not None:
            sock.close()

    def _serve_socket(self, client: paho.Client) -> None:
        self._sock = client.socket()
        if self._sock is None:
            raise ConnectionResetError("the connection was closed at once")
        # Nagle's algorithm would hold back the end of a message until the peer's delayed acknowledgement.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(self._sock, client.loop_read)
        self._start_writing()  # CONNECT was queued before there was a socket to watch
        self._upkeep = self._loop.create_task(self._keep_alive(client))

    async def _keep_alive(self, client: paho.Client) -> None:
        while client.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS:  # noqa: ASYNC110 - time is the event
            await asyncio.sleep(1.0)

    def _start_writing(self) -> None:
        if self._sock is not None and self._client is not None:
            self._loop.add_writer(self._sock, self._client.loop_write)

    def _stop_writing(self) -> None:
        if self._sock is not None:
            self._loop.remove_writer(self._sock)

    def _forget_socket(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock = None

    def _on_connect(self, client: paho.Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if reason.is_failure:
            self._end(f"the broker refused the connection: {reason}")
        else:
            client.subscribe(HUB_SUBSCRIPTION, qos=1)

    def _on_subscribe(self, _: Any, __: Any, ___: Any, reasons: list[ReasonCode], ____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._end("the broker refused the subscription")
        elif not self._ready.done():
            self._ready.set_result(None)

    def _on_publish(self, _: Any, __: Any, mid: int, ___: Any, ____: Any) -> None:
        waiter = self._waiters.get(mid)
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        self._end(f"the connection broke: {reason}")

    def _end(self, why: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(BrokerUnavailable(why))
            self._ready.exception()  # seen: nobody waits for it if the connection was never tried
        if not self._closed.done():
            self._closed.set_result(why)
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_result(False)
        if self._upkeep is not None and self._upkeep is not asyncio.current_task():
            self._upkeep.cancel()
