"""One connection to the broker: the agent's one adapter over paho-mqtt, driven through its socket by asyncio.

paho stays a parser and writer of packets; what it does badly is done here and in `agent.mqtt`, which makes
connections one after the other (design, section 7, *MQTT*):

- Its own loop uses ``select``: here the event loop watches the socket. Connecting blocks, so a thread
  does it.
- It queues while unconnected, and ignores its in-flight limit when it reconnects: here every connection
  has a paho client of its own, and what was not acknowledged when it ends is an error for the sender.
- It stores a packet of up to 256 MB before anyone sees it: here the connection ends before the first byte
  of one that is too large.

Messages are acknowledged after they were processed, in the order in which they came (MQTT 3.1.1, rule
MQTT-4.6.0-2), so a crash while processing gets them again.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from fleet.protocol.enrolment import BrokerAccess
from fleet.protocol.errors import BrokerUnavailable
from fleet.protocol.messages import MAX_PACKET_SIZE_BYTES

HANDSHAKE_TIMEOUT_S = 15.0
QOS = 1
_REFUSED = 0x80

Done = Callable[[], None]
"""Called when a message has been processed; it is then acknowledged."""

Handler = Callable[[str, bytes, Done], None]


class BoundedClient(paho.Client):
    """paho's client. It asks the socket for a packet's whole declared size: the place to refuse it."""

    oversized_bytes = 0

    def _sock_recv(self, buffer_size: int) -> bytes:
        if buffer_size > MAX_PACKET_SIZE_BYTES:
            self.oversized_bytes = buffer_size
            raise ConnectionAbortedError("oversized packet")
        return super()._sock_recv(buffer_size)


def new_client(
    device_id: str, access: BrokerAccess, will: tuple[str, bytes], *, clean_session: bool
) -> BoundedClient:
    """Return a client for one connection.

    Args:
        device_id: The MQTT client id.
        access: The account.
        will: Topic and payload of the last will.
        clean_session: Whether the broker forgets what it kept for this device.
    """
    client = BoundedClient(
        CallbackAPIVersion.VERSION2,
        client_id=device_id,
        clean_session=clean_session,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.username_pw_set(access.username, access.password)
    client.will_set(*will, qos=QOS)
    client.connect_timeout = HANDSHAKE_TIMEOUT_S
    client.max_inflight_messages = 0  # no second window under the link's
    return client


class Connection:
    """One connection from CONNECT to its loss.

    Args:
        client: A paho client that was never connected.
        handler: Gets every message.
        keepalive_s: How long the line may be silent before it is tried.
    """

    def __init__(self, client: BoundedClient, handler: Handler, keepalive_s: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._handler = handler
        self._keepalive_s = keepalive_s
        self._unacknowledged: deque[list[Any]] = deque()  # [message id, processed], oldest first
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.accepted: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()

    async def open(self, access: BrokerAccess) -> None:
        """Connect and wait for the broker's consent.

        Raises:
            BrokerUnavailable: The broker cannot be reached or refuses.
        """
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_message = self._on_message
        try:
            connect = partial(client.connect, access.host, access.port, self._keepalive_s)
            await self._loop.run_in_executor(None, connect)
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"The broker at {access.host}:{access.port} does not answer.") from error
        opened = client.socket()
        if not isinstance(opened, socket.socket):
            raise BrokerUnavailable(f"The broker at {access.host}:{access.port} closed the connection.")
        # Acknowledgements and requests are small: Nagle's algorithm would hold each back for up to 40 ms.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = opened
        # Set only now: paho calls them while it connects, and that was in another thread.
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        self._loop.add_reader(self._socket, self._read)
        if client.want_write():
            self._loop.add_writer(self._socket, self._write)
        self._timer = self._loop.call_later(1.0, self._tick)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await self.accepted
        except TimeoutError as error:
            raise BrokerUnavailable("The broker does not answer the connection request.") from error

    async def close(self) -> None:
        """Say goodbye, so that the broker does not publish the will, and give the socket back."""
        if not self.lost.done():
            self._client.disconnect()
            try:
                async with asyncio.timeout(0.5):
                    await self.lost
            except (TimeoutError, BrokerUnavailable):
                pass
        self.abort("closed")

    def abort(self, why: str) -> None:
        """Drop the connection without a goodbye; harmless when it is gone already."""
        self._end(why)
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish and wait for the broker's acknowledgement."""
        info = self._client.publish(topic, payload, qos=QOS)
        await self._answer(info.rc, info.mid)

    async def subscribe(self, pattern: str) -> None:
        """Subscribe and wait for the broker's acknowledgement."""
        code, mid = self._client.subscribe(pattern, qos=QOS)
        await self._answer(code, mid)

    async def unsubscribe(self, pattern: str) -> None:
        """End a subscription and wait for the broker's acknowledgement."""
        code, mid = self._client.unsubscribe(pattern)
        await self._answer(code, mid)

    async def _answer(self, code: MQTTErrorCode, mid: int | None) -> None:
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None or self.lost.done():
            raise BrokerUnavailable("There is no connection to the broker.")
        answer = self._answers[mid] = self._loop.create_future()
        try:
            await answer
        finally:
            self._answers.pop(mid, None)

    def _resolve(self, mid: int, error: BrokerUnavailable | None = None) -> None:
        answer = self._answers.get(mid)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def _end(self, why: str) -> None:
        error = BrokerUnavailable(f"The connection to the broker ended: {why}.")
        if not self.accepted.done():
            self.accepted.set_exception(error)
            self.accepted.exception()  # nobody waits for it if connecting failed before
        if not self.lost.done():
            self.lost.set_result(None)
        for mid in list(self._answers):
            self._resolve(mid, error)

    def _read(self) -> None:
        self._client.loop_read()

    def _write(self) -> None:
        self._client.loop_write()

    def _tick(self) -> None:
        self._client.loop_misc()
        self._timer = self._loop.call_later(1.0, self._tick)

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        if self.accepted.done():
            return
        if reason.is_failure:
            self.accepted.set_exception(BrokerUnavailable(f"The broker refuses the connection: {reason}."))
        else:
            self.accepted.set_result(None)

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self._end(str(reason))

    def _on_publish(self, _c: Any, _u: Any, mid: int, _r: Any, _p: Any) -> None:
        self._resolve(mid)

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        refused = any(reason.value >= _REFUSED for reason in reasons)
        self._resolve(mid, BrokerUnavailable("The broker refuses a subscription.") if refused else None)

    def _on_unsubscribe(self, _c: Any, _u: Any, mid: int, _r: Any, _p: Any) -> None:
        self._resolve(mid)

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        entry = [message.mid, False]
        if message.qos:
            self._unacknowledged.append(entry)

        def done() -> None:
            entry[1] = True
            while self._unacknowledged and self._unacknowledged[0][1]:
                mid = self._unacknowledged.popleft()[0]
                if not self.lost.done():
                    self._client.ack(mid, QOS)

        try:
            topic = message.topic
        except UnicodeDecodeError:  # no topic of ours; a broker should not have let it through
            done()
            return
        self._handler(topic, bytes(message.payload), done)

    def _on_socket_close(self, _c: Any, _u: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)

    def _on_register_write(self, _c: Any, _u: Any, sock: Any) -> None:
        self._loop.add_writer(sock, self._write)

    def _on_unregister_write(self, _c: Any, _u: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)
