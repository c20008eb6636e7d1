"""One connection to the broker: a paho client whose socket is served by asyncio.

paho calls back when it opens and closes its socket and when it has something to write; the event loop calls
it when the socket is ready. There are no threads except for name lookup and TCP connect, which block in paho.
A connection is opened once and never again, so nothing of paho's memory outlives a connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from fleet.protocol.errors import BrokerUnavailable
from fleet.protocol.topics import HUB_SUBSCRIPTION

KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 10.0


class Connection:
    """One connection: a paho client whose socket is served by asyncio. Never opened twice.

    Args:
        receive: Called with each message that arrives.
        window: Most messages in flight.
    """

    def __init__(self, receive: Callable[[Connection, paho.MQTTMessage], None], window: int) -> None:
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
