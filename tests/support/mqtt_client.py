"""A plain MQTT client for tests: paho in a thread of its own, without reconnecting."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from tests.support.brokers import HOST

TIMEOUT_S = 10.0
QUIET_S = 0.2
"""How long a message that must not come is waited for, after one that must come has come."""


class Message(NamedTuple):
    """What was received."""

    topic: str
    payload: bytes


class Refused(Exception):
    """The broker refused the connection."""


class Listening(Protocol):
    """A broker that runs somewhere."""

    @property
    def port(self) -> int:
        """Where it listens."""
        ...

    @property
    def passwords(self) -> Mapping[str, str]:
        """Password by username."""
        ...


class Client:
    """One connection.

    Args:
        broker: Where to connect.
        username: The account; its password is looked up.
        client_id: Another client id than the account's name.
        password: Another password than the account's.
        clean: Whether the session is forgotten at the end.
        will: Topic and payload of the last will.
    """

    def __init__(
        self,
        broker: Listening,
        username: str,
        *,
        client_id: str | None = None,
        password: str | None = None,
        clean: bool = True,
        will: Message | None = None,
    ) -> None:
        self.username = username
        self.messages: queue.Queue[Message] = queue.Queue()
        self._answers: queue.Queue[list[bool]] = queue.Queue()
        self._connected: queue.Queue[bool] = queue.Queue()
        self._published = threading.Condition()
        self._acknowledged: set[int] = set()
        self.ended = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=username if client_id is None else client_id,
            clean_session=clean,
        )
        if username:
            self._client.username_pw_set(
                username, broker.passwords.get(username, "") if password is None else password
            )
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1)
        self._client.on_connect = lambda *event: self._connected.put(not event[3].is_failure)
        self._client.on_subscribe = lambda *event: self._answers.put(
            [not code.is_failure for code in event[3]]
        )
        self._client.on_publish = lambda *event: self._on_publish(event[2])
        self._client.on_message = lambda *event: self.messages.put(
            Message(event[2].topic, bytes(event[2].payload))
        )
        self._client.connect(HOST, broker.port, keepalive=10)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait_connected(self) -> Self:
        """Wait for the broker's answer.

        Raises:
            Refused: It was no, or the connection ended.
        """
        try:
            accepted = self._connected.get(timeout=TIMEOUT_S)
        except queue.Empty:
            accepted = False
        if not accepted:
            self.close()
            raise Refused
        return self

    def subscribe(self, topic_filter: str) -> bool:
        """Subscribe at QoS 1; tell whether the broker said yes."""
        self._client.subscribe(topic_filter, qos=1)
        return all(self._answers.get(timeout=TIMEOUT_S))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, wait: bool = True) -> None:
        """Publish at QoS 1 and wait for the acknowledgement."""
        mid = self._client.publish(topic, payload, qos=1, retain=retain).mid
        if wait:
            with self._published:
                assert self._published.wait_for(lambda: mid in self._acknowledged, TIMEOUT_S)

    def receive(self) -> Message:
        """Wait for the next message."""
        return self.messages.get(timeout=TIMEOUT_S)

    def receives_nothing(self) -> bool:
        """Tell whether no message comes for a while."""
        try:
            self.messages.get(timeout=QUIET_S)
        except queue.Empty:
            return True
        return False

    def break_off(self) -> None:
        """Vanish as a killed process does: the connection ends without a word."""
        connection = self._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT_S)

    def close(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        self._thread.join(TIMEOUT_S)

    def __enter__(self) -> Self:
        return self.wait_connected()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_publish(self, mid: int) -> None:
        with self._published:
            self._acknowledged.add(mid)
            self._published.notify_all()

    def _serve(self) -> None:
        try:
            while self._client.loop(0.05) == MQTTErrorCode.MQTT_ERR_SUCCESS:
                pass
        finally:
            self._connected.put(False)
            self.ended.set()
        connection = self._client.socket()
        if connection is not None:
            connection.close()
