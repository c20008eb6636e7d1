"""What ingest is compared with: pydantic and one sqlite-utils insert for each message, received by paho."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import paho.mqtt.client as paho
import sqlite_utils
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import BaseModel, Field, TypeAdapter
from sqlite_utils.db import Table

from fleet.protocol.topics import HUB_ACCOUNT, HUB_SUBSCRIPTION, parse_up
from hub.mqtt_packets import Published

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Window(BaseModel):
    """A telemetry window; its counts stay sealed here too."""

    started_at_s: Annotated[float, Field(ge=0)]
    ended_at_s: Annotated[float, Field(ge=0)]
    model: Name
    version: Count
    manifest_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    variant: Name
    predictions: Count = 0
    errors: Count = 0
    labelled: Count = 0
    correct: Count = 0


class Record(BaseModel):
    """A record that carries one."""

    stream: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    number: Count
    body: Window


_RECORDS: TypeAdapter[Record] = TypeAdapter(Record)


class PerMessage:
    """Decodes, validates and stores each message on its own, durably.

    Args:
        path: The database, made here.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite_utils.Database(path, strict=True)
        self._db.enable_wal()
        self._db.execute("PRAGMA synchronous=FULL")
        self._records: Table = self._db.table("records")
        columns: dict[str, Any] = {
            "device_id": str,
            "stream": str,
            "number": int,
            "received_at_s": float,
            "model": str,
            "body": bytes,
        }
        self._records.create(columns, pk=("device_id", "stream", "number"))

    def take(self, topic: str, payload: bytes) -> None:
        """Take in one message."""
        device_id, _ = parse_up(topic)
        record = _RECORDS.validate_python(msgspec.msgpack.decode(payload))
        self._records.insert(
            {
                "device_id": device_id,
                "stream": record.stream,
                "number": record.number,
                "received_at_s": time.time(),
                "model": record.body.model,
                "body": payload,
            },
            ignore=True,
        )

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def per_message_ns(path: Path, messages: list[Published]) -> float:
    """Return the CPU time of a message taken in so, in nanoseconds."""
    peer = PerMessage(path)
    started_ns = time.process_time_ns()
    for message in messages:
        peer.take(message.topic, message.payload)
    spent_ns = time.process_time_ns() - started_ns
    peer.close()
    return spent_ns / len(messages)


class PahoReceiver:
    """Receives with paho, acknowledging after each message was taken in.

    Args:
        port: The broker's.
        password: The hub's.
        take: Takes a message in; None to take it for nothing.
    """

    def __init__(self, port: int, password: str, take: PerMessage | None) -> None:
        self.received = 0
        self._take = take
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=HUB_ACCOUNT, clean_session=False, manual_ack=True
        )
        self._client.username_pw_set(HUB_ACCOUNT, password)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)

    def serve(self) -> None:
        """Deal with what is there now."""
        self._client.loop(0.1)

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(HUB_SUBSCRIPTION, qos=1)

    def _on_message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        if self._take is not None:
            self._take.take(message.topic, bytes(message.payload))
        self._client.ack(message.mid, message.qos)
        self.received += 1
