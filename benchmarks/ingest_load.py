"""Load for the ingest benchmark: telemetry windows as devices send them, and a sender over real MQTT."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

import numpy as np

from fleet.drift.profile import ReferenceProfile, categorical_reference, count, numeric_reference
from fleet.protocol.latency import count_durations
from fleet.protocol.messages import MAX_PACKET_SIZE_BYTES, Record, encode
from fleet.protocol.records import TelemetryWindow, packed
from fleet.protocol.topics import Up, up
from hub import mqtt_packets as packets
from hub.mqtt_packets import PacketReader, Published

MODEL, VERSION, DIGEST = "digits", 1, "ab" * 32
CLASSES, PREDICTIONS, BINS = 10, 20, 64
DIFFERENT_WINDOWS = 997
"""A prime, so that no device sends the same few again and again."""
NOW_S = 1_790_000_000.0
SEED = 7
_BURST = 200


def reference() -> ReferenceProfile:
    """Return the reference of the demo's kind of model: class, confidence, and two numbers of the input."""
    rng = np.random.default_rng(SEED)
    return ReferenceProfile(
        (
            categorical_reference("output.class", rng.integers(0, CLASSES, 5000), CLASSES),
            numeric_reference("output.confidence", rng.beta(8, 2, 5000), bins=BINS),
            numeric_reference("input.mean", rng.normal(size=5000), bins=BINS),
            numeric_reference("input.contrast", rng.normal(size=5000), bins=BINS),
        )
    )


def payloads(devices: int, messages: int) -> list[tuple[str, bytes]]:
    """Return device and record of each message: devices take turns, each counts its own records.

    Args:
        devices: How many devices.
        messages: How many messages of all.
    """
    bodies = _bodies()
    return [
        (
            f"cam-{number % devices}",
            encode(
                Record(f"{number % devices:016x}", number // devices + 1, bodies[number % DIFFERENT_WINDOWS])
            ),
        )
        for number in range(messages)
    ]


def published(devices: int, messages: int) -> list[Published]:
    """Return the same messages as they come from the broker."""
    return [
        Published(up(device_id, Up.RECORD), payload, b"\x00\x01")
        for device_id, payload in payloads(devices, messages)
    ]


class Sender:
    """Sends at QoS 1, a device's messages over its own connection, and reads the acknowledgements.

    Args:
        port: The broker's.
        passwords: Of the devices' accounts.
    """

    def __init__(self, port: int, passwords: dict[str, str]) -> None:
        self._connections = {
            device_id: _connected(port, device_id, password) for device_id, password in passwords.items()
        }

    def send(self, messages: Sequence[tuple[str, bytes]]) -> float:
        """Send devices' records as fast as the broker takes them; return the seconds that it took."""
        started_s = time.perf_counter()
        by_device: dict[str, list[bytes]] = {device_id: [] for device_id in self._connections}
        for number, (device_id, payload) in enumerate(messages):
            packet = packets.publish(up(device_id, Up.RECORD), payload, number % 60_000 + 1)
            by_device[device_id].append(packet)
        for first in range(0, max(map(len, by_device.values())), _BURST):
            bursts = {device_id: sent[first : first + _BURST] for device_id, sent in by_device.items()}
            for device_id, burst in bursts.items():
                self._connections[device_id].sendall(b"".join(burst))
            for device_id, burst in bursts.items():
                _wait_acknowledged(self._connections[device_id], len(burst))
        return time.perf_counter() - started_s

    def close(self) -> None:
        """End every connection."""
        for connection in self._connections.values():
            connection.close()


def _bodies() -> list[TelemetryWindow]:
    rng, features = np.random.default_rng(SEED), reference().features
    made = []
    for _ in range(DIFFERENT_WINDOWS):
        drawn = (
            rng.integers(0, CLASSES, PREDICTIONS),
            rng.beta(8, 2, PREDICTIONS),
            rng.normal(size=PREDICTIONS),
            rng.normal(size=PREDICTIONS),
        )
        window = TelemetryWindow(
            started_at_s=NOW_S - 5,
            ended_at_s=NOW_S,
            model=MODEL,
            version=VERSION,
            manifest_sha256=DIGEST,
            variant="onnx-int8",
            predictions=PREDICTIONS,
            latency=count_durations(rng.lognormal(5.0, 0.3, PREDICTIONS)),
            profile={
                feature.name: count(feature, values) for feature, values in zip(features, drawn, strict=True)
            },
        )
        body = packed(window)
        assert isinstance(body, TelemetryWindow)
        made.append(body)
    return made


def _connected(port: int, device_id: str, password: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 30.0)
    connection.sendall(packets.connect(device_id, device_id, password, keepalive_s=300))
    connection.recv(4)
    return connection


def _wait_acknowledged(connection: socket.socket, number: int) -> None:
    reader, acknowledged = PacketReader(MAX_PACKET_SIZE_BYTES), 0
    while acknowledged < number:
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionResetError("The broker hung up on a device.")
        acknowledged += sum(answer.kind == packets.PUBACK for answer in reader.feed(data)[1])
