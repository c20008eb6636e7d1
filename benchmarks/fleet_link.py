"""A simulated device's connection to the broker: MQTT 3.1.1 by hand, thousands in one process.

As the agent's: the session outlives the connection, a last will says that the device is gone, everything is
at QoS 1, and the client id is the account. What was published and not acknowledged when a connection ends is
not published again by this side: everything that matters comes again by the protocol above.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from fleet.protocol.messages import MAX_PACKET_SIZE_BYTES, Presence, encode
from fleet.protocol.topics import Up, up
from hub import mqtt_packets as packets
from hub.mqtt_packets import PacketReader

KEEPALIVE_S = 120
_GONE = encode(Presence(online=False))


class Owner(Protocol):
    """Whose connection it is."""

    def on_connected(self) -> None:
        """The broker accepted the connection."""
        ...

    def on_message(self, topic: str, payload: bytes) -> None:
        """Something was published to the device."""
        ...

    def on_lost(self) -> None:
        """The connection has ended, or was refused."""
        ...


class Traffic:
    """What all connections together carried, in messages published either way."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.received_bytes = 0


class Link(asyncio.Protocol):
    """One connection.

    Args:
        owner: Told of what happens.
        device_id: The account, and the client id.
        password: Of the account.
        traffic: Counts what is carried.
    """

    def __init__(self, owner: Owner, device_id: str, password: str, traffic: Traffic) -> None:
        self._owner = owner
        self._device_id = device_id
        self._password = password
        self._traffic = traffic
        self._reader = PacketReader(MAX_PACKET_SIZE_BYTES)
        self._transport: asyncio.Transport | None = None
        self._subscribed: dict[int, Callable[[], None]] = {}
        self._last_id = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who this is."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._write(
            packets.connect(
                self._device_id,
                self._device_id,
                self._password,
                keepalive_s=KEEPALIVE_S,
                will=(up(self._device_id, Up.PRESENCE), _GONE),
            )
        )

    def data_received(self, data: bytes) -> None:
        """Take what the broker sent; what was published is acknowledged once it was handled."""
        published, answers = self._reader.feed(data)
        for answer in answers:
            if answer.kind == packets.CONNACK:
                if answer.content[1]:
                    self.abort()
                else:
                    self._owner.on_connected()
            elif answer.kind == packets.SUBACK:
                self._subscribed.pop(answer.packet_id)()
        for message in published:
            self._traffic.received += 1
            self._traffic.received_bytes += len(message.payload)
            self._owner.on_message(message.topic, message.payload)
        if published:
            self._write(packets.pubacks(published))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        del exc
        self._transport = None
        self._owner.on_lost()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1."""
        self._traffic.sent += 1
        self._write(packets.publish(topic, payload, self._next_id()))

    def subscribe(self, topic_filter: str, then: Callable[[], None]) -> None:
        """Subscribe, and go on once the broker has confirmed it."""
        number = self._next_id()
        self._subscribed[number] = then
        self._write(packets.subscribe(number, topic_filter))

    def unsubscribe(self, topic_filter: str) -> None:
        """End a subscription."""
        self._write(packets.unsubscribe(self._next_id(), topic_filter))

    def abort(self) -> None:
        """End the connection as if its cable were cut: the broker sends the last will."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection in order, without a last will."""
        self._write(packets.DISCONNECT)
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _next_id(self) -> int:
        self._last_id = self._last_id % packets.LAST_PACKET_ID + 1
        return self._last_id
