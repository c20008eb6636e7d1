"""One connection to the broker: MQTT 3.1.1 over a socket of asyncio's, opened once and never again.

::

    open ─► CONNECT ─► CONNACK ─► SUBSCRIBE ─► SUBACK ─► ready ──────────────► closed
                                                     PUBLISH in: handed over, acknowledged when told so
                                                     PUBLISH out: waits for its PUBACK, or is only sent

Messages are not acknowledged here: who took them over says when (`Connection.acknowledge`). If too much waits
there, reading pauses, and TCP and the broker keep the rest.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from fleet.protocol.errors import BrokerUnavailable, InvalidMessage
from fleet.protocol.messages import MAX_PACKET_SIZE_BYTES
from fleet.protocol.topics import HUB_SUBSCRIPTION
from hub import mqtt_packets as packets
from hub.mqtt_packets import Answer, PacketReader, Published

KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 10.0
UPKEEP_S = KEEPALIVE_S / 3
"""How often the broker is asked for a sign of life."""
MAX_UNACKNOWLEDGED = 4096
"""Far fewer than there are packet ids."""
_SUBSCRIPTION_ID = 1


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        receive: Called with the messages that arrived together.
    """

    def __init__(self, receive: Callable[[Connection, Sequence[Published]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._reader = PacketReader(MAX_PACKET_SIZE_BYTES)
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[str] = self._loop.create_future()
        self._waiters: dict[int, asyncio.Future[bool]] = {}
        self._last_id = _SUBSCRIPTION_ID
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._heard_at_s = self._loop.time()
        self._upkeep: asyncio.TimerHandle | None = None
        self._paused = False

    async def open(self, host: str, port: int, username: str, password: str) -> None:
        """Connect and subscribe.

        Raises:
            BrokerUnavailable: The broker cannot be reached, refuses, or does not answer in time.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._loop.create_connection(lambda: self, host, port)
                self._write(packets.connect(username, username, password, keepalive_s=KEEPALIVE_S))
                await self._ready
        except (OSError, TimeoutError) as error:
            raise BrokerUnavailable(
                f"{host}:{port} cannot be reached ({error or 'no answer in time'})"
            ) from error
        self._keep_alive()

    async def publish(self, topic: str, payload: bytes) -> bool:
        """Publish at QoS 1; return True once acknowledged, False if the connection closed before.

        Raises:
            BrokerUnavailable: Too much was published that the broker has not acknowledged.
        """
        await self._may_write.wait()
        if self._closed.done():
            return False
        if len(self._waiters) >= MAX_UNACKNOWLEDGED:
            raise BrokerUnavailable("The broker has not acknowledged what was published before.")
        packet_id = self._free_id()
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters[packet_id] = waiter
        self._write(packets.publish(topic, payload, packet_id))
        return await waiter  # if nobody waits any more, its place is free when the acknowledgement comes

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish at QoS 0: return when the messages are on their way, or are lost with the connection."""
        self._write(b"".join(packets.publish(topic, payload) for topic, payload in messages))
        await self._may_write.wait()

    def acknowledge(self, messages: Sequence[Published]) -> None:
        """Tell the broker that these were handled; nothing happens if the connection is gone."""
        self._write(packets.pubacks(messages))

    @property
    def paused(self) -> bool:
        """Whether nothing is read, so that no acknowledgement can come either."""
        return self._paused

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on."""
        if self._transport is None or self._closed.done() or paused == self._paused:
            return
        self._paused = paused
        self._heard_at_s = self._loop.time()
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    async def closed(self) -> str:
        """Wait until the connection has ended; return why."""
        return await asyncio.shield(self._closed)

    def close(self, why: str = "the hub closed the connection") -> None:
        """End the connection; to do so twice does no harm."""
        self._write(packets.DISCONNECT)
        self._end(why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; if `close` came first, leave no socket behind."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._closed.done():
            transport.abort()
            return
        # Nagle's algorithm would hold back the end of a message until the peer's delayed acknowledgement.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Hand over what was published, and deal with everything else."""
        self._heard_at_s = self._loop.time()
        try:
            published, answers = self._reader.feed(data)
        except InvalidMessage as error:
            self._end(error.message)
            return
        for answer in answers:
            self._on_answer(answer)
        if published:
            self._receive(self, published)

    def pause_writing(self) -> None:
        """Let writers wait: the broker does not keep up."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self._end(f"the connection broke: {exc or 'the broker closed it'}")

    def _on_answer(self, answer: Answer) -> None:
        if answer.kind == packets.CONNACK:
            code = answer.content[1]
            if code:
                reason = packets.RETURN_CODES.get(code, f"return code {code}")
                self._end(f"the broker refused the connection: {reason}")
            else:
                self._write(packets.subscribe(_SUBSCRIPTION_ID, HUB_SUBSCRIPTION))
        elif answer.kind == packets.SUBACK:
            if packets.REFUSED in answer.content[2:]:
                self._end("the broker refused the subscription")
            elif not self._ready.done():
                self._ready.set_result(None)
        elif answer.kind == packets.PUBACK:
            _settle(self._waiters.pop(answer.packet_id, None), True)

    def _keep_alive(self) -> None:
        if self._closed.done():
            return
        if not self._paused and self._loop.time() - self._heard_at_s > 1.5 * KEEPALIVE_S:
            self._end("the broker gives no sign of life")
            return
        self._write(packets.PINGREQ)
        self._upkeep = self._loop.call_later(UPKEEP_S, self._keep_alive)

    def _free_id(self) -> int:
        """Return a packet id that is not in use."""
        while True:
            self._last_id = self._last_id % packets.LAST_PACKET_ID + 1
            if self._last_id not in self._waiters and self._last_id != _SUBSCRIPTION_ID:
                return self._last_id

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data and not self._closed.done():
            self._transport.write(data)

    def _end(self, why: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(BrokerUnavailable(why))
            self._ready.exception()  # seen: nobody waits for it if the connection was never tried
        if not self._closed.done():
            self._closed.set_result(why)
        self._may_write.set()
        for waiter in self._waiters.values():
            _settle(waiter, False)
        self._waiters.clear()
        if self._upkeep is not None:
            self._upkeep.cancel()
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():  # a broker that reads no more would keep it open
            self._transport.abort()
        else:
            self._transport.close()


def _settle(waiter: asyncio.Future[bool] | None, acknowledged: bool) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(acknowledged)
