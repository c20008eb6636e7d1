"""A fast MQTT client for load: hand-encoded packets on a blocking socket, many in one write."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from itertools import count
from types import TracebackType
from typing import Self

from fleet.protocol.messages import MAX_PACKET_SIZE_BYTES
from hub import mqtt_packets as packets
from hub.mqtt_packets import Answer, PacketReader, Published
from tests.support.brokers import HOST

TIMEOUT_S = 10.0


class Ended(Exception):
    """The broker closed the connection, or refused it."""


class RawClient:
    """One connection, at QoS 1 both ways.

    Args:
        port: The broker's.
        username: The account, and the client id.
        password: Its password.
    """

    def __init__(self, port: int, username: str, password: str) -> None:
        self._reader = PacketReader(MAX_PACKET_SIZE_BYTES)
        self._ids = count(2)
        self._arrived: list[Published] = []
        self._socket = socket.create_connection((HOST, port), TIMEOUT_S)
        try:
            self._socket.sendall(packets.connect(username, username, password, keepalive_s=60))
            refused = self._answer(packets.CONNACK).content[1]
        except BaseException:
            self._socket.close()
            raise
        if refused:
            self._socket.close()
            raise Ended

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe, and wait for the broker's answer."""
        self._socket.sendall(packets.subscribe(1, topic_filter))
        self._answer(packets.SUBACK)

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish topics and payloads, and wait for nothing."""
        numbered = ((message, next(self._ids) % packets.LAST_PACKET_ID + 1) for message in messages)
        data = b"".join(packets.publish(topic, payload, number) for (topic, payload), number in numbered)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Ended from error

    def receive(self, timeout_s: float = TIMEOUT_S) -> list[Published]:
        """Return what was published to this client, acknowledged: at least one message, or nothing in time.

        Raises:
            Ended: The broker closed the connection.
        """
        self._socket.settimeout(timeout_s)
        try:
            while not self._arrived:
                self._read()
        except TimeoutError:
            return []
        arrived, self._arrived = self._arrived, []
        return arrived

    def close(self) -> None:
        """End the connection without a word."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, kind: int) -> Answer:
        while True:
            for answer in self._read():
                if answer.kind == kind:
                    return answer

    def _read(self) -> list[Answer]:
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            raise
        except OSError as error:
            raise Ended from error
        if not data:
            raise Ended
        published, answers = self._reader.feed(data)
        self._arrived += published
        if published:
            self._socket.sendall(packets.pubacks(published))
        return answers
