"""The hub's side of the protocol, small, for the agent's tests: it speaks the real one over a real broker.

Faults are injected by replacing what it sends: `alter_chunk`, `alter_file`, `lose_ack`, `silent`.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from fleet.protocol.assignment import Assignment, ModelOrder
from fleet.protocol.capture import CapturePolicy
from fleet.protocol.chunks import CHUNK_SIZE_BYTES, chunk_count, indices_of
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.enrolment import (
    BrokerAccess,
    EnrolmentAnswer,
    EnrolmentRequest,
    EnrolmentToken,
)
from fleet.protocol.maintenance import Maintenance, Mode
from fleet.protocol.messages import (
    FILE_PART_SIZE_BYTES,
    Ack,
    FetchRequest,
    FileAnswer,
    Hello,
    Record,
    StateReport,
    Want,
    decode,
    encode,
)
from fleet.protocol.records import DeploymentReport, Incident, Measurement, ShadowReport, TelemetryWindow
from fleet.protocol.samples import SampleMessage
from fleet.protocol.topics import HUB_ACCOUNT, HUB_SUBSCRIPTION, Down, Up, chunk, down, parse_up
from fleet.protocol.wishes import NO_WISHES, Wishes
from tests.support.agent_broker import AnyBroker
from tests.support.agent_bundles import Bundle
from tests.support.agent_enrolment import EnrolmentServer
from tests.support.agent_repository import DirectorKey, Repository
from tests.support.brokers import HOST
from tests.support.waiting import eventually


class Peer:
    """A hub for one test.

    Args:
        broker: Where devices connect.
    """

    def __init__(self, broker: AnyBroker) -> None:
        self.repository = Repository()
        self.blobs: dict[str, bytes] = {}
        self.records: list[Record] = []
        self.arrivals_s: list[float] = []
        """When each record came, also one that came before; by the monotonic clock."""
        self.lose_ack: Callable[[Record], bool] = lambda _record: False
        self.samples: list[SampleMessage] = []
        """Captured samples, each once, in the order in which they came."""
        self.states: list[StateReport] = []
        self.hellos: list[Hello] = []
        self.wants: list[Want] = []
        self.fetches: list[str] = []
        self.chunks_sent = 0
        self.alter_chunk: Callable[[str, int, bytes], bytes | None] = lambda _sha, _number, data: data
        self.alter_file: Callable[[str, bytes | None], bytes | None] = lambda _path, data: data
        self.silent: set[Up] = set()
        self._sequence = 0
        self._assignments: dict[str, bytes] = {}
        self._broker = broker
        self._stored: set[tuple[str, int]] = set()
        self._faults: list[Exception] = []
        self.back()
        self._enrolment = EnrolmentServer(self.enrol)

    # What a test asks for ----------------------------------------------------

    @property
    def url(self) -> str:
        """Where devices enrol."""
        return f"http://{HOST}:{self._enrolment.server_port}"

    @property
    def token(self) -> str:
        """A token for any device."""
        return str(EnrolmentToken("s" * 43, hashlib.sha256(self.repository.root).hexdigest()))

    def release(self, *bundles: Bundle) -> None:
        """Release versions."""
        for bundle in bundles:
            self.repository.release(bundle)
            self.blobs.update(bundle.blobs)

    def assignment(
        self,
        device_id: str,
        *orders: tuple[Bundle, str],
        sequence: int | None = None,
        expires_in_s: int = 600,
        shadow_s: int = 0,
    ) -> Assignment:
        """Return an assignment of bundles with their deployment ids."""
        if sequence is None:
            self._sequence += 1
            sequence = self._sequence
        now_s = int(time.time())
        models = tuple(
            ModelOrder(
                bundle.manifest.model,
                bundle.manifest.version,
                bytes.fromhex(bundle.sha256),
                bundle.ordered,
                deployment_id,
                bundle.alternatives,
                bundle.policy,
                shadow_s,
            )
            for bundle, deployment_id in orders
        )
        return Assignment(device_id, sequence, now_s, now_s + expires_in_s, models)

    def assign(
        self,
        device_id: str,
        *orders: tuple[Bundle, str],
        key: DirectorKey | None = None,
        shadow_s: int = 0,
        wishes: Wishes = NO_WISHES,
        capture: CapturePolicy | None = None,
        maintenance: Maintenance | None = None,
        mode: Mode = Mode.SOFT,
    ) -> Assignment:
        """Order bundles, now and after each announcement."""
        given = self.assignment(device_id, *orders, shadow_s=shadow_s)
        models = tuple(
            msgspec.structs.replace(order, capture=capture, maintenance=maintenance, mode=mode)
            for order in given.models
        )
        assignment = msgspec.structs.replace(given, models=models, wishes=wishes)
        message = (key or self.repository.director).sign(assignment)
        self._assignments[device_id] = message
        self.send(device_id, Down.ASSIGNMENT, message)
        return assignment

    def send(self, device_id: str, channel: Down, payload: bytes) -> None:
        """Send any bytes to a device."""
        self._client.publish(down(device_id, channel), payload, qos=1)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish any bytes anywhere."""
        self._client.publish(topic, payload, qos=1)

    def reports(self, deployment_id: str) -> list[DeploymentReport]:
        """Return what was reported of a deployment, in the order of the records' numbers."""
        self._check()
        return [
            record.body
            for record in sorted(self.records, key=lambda record: record.number)
            if isinstance(record.body, DeploymentReport) and record.body.deployment_id == deployment_id
        ]

    def wait_report(self, deployment_id: str, state: DeploymentState) -> DeploymentReport:
        """Return a report of a state, when it has come."""
        return eventually(lambda: next((r for r in self.reports(deployment_id) if r.state is state), None))

    def wait_end(self, deployment_id: str) -> DeploymentReport:
        """Return the report of a deployment's terminal state, when it has come."""
        return eventually(lambda: next((r for r in self.reports(deployment_id) if r.state.is_terminal), None))

    def wait_incident(self, code: str) -> Incident:
        """Return an incident of a code, when it has come."""
        return eventually(
            lambda: next(
                (r.body for r in self.records if isinstance(r.body, Incident) and r.body.cause.code == code),
                None,
            )
        )

    def shadows(self, deployment_id: str) -> list[ShadowReport]:
        """Return what was reported of a shadow."""
        return [
            record.body
            for record in sorted(self.records, key=lambda record: record.number)
            if isinstance(record.body, ShadowReport) and record.body.deployment_id == deployment_id
        ]

    def measurements(self, deployment_id: str) -> list[Measurement]:
        """Return what a device has told of its choice of a variant."""
        bodies = [record.body for record in self.records]
        return [b for b in bodies if isinstance(b, Measurement) and b.deployment_id == deployment_id]

    def windows(self) -> list[TelemetryWindow]:
        """Return the telemetry that has come."""
        return [record.body for record in self.records if isinstance(record.body, TelemetryWindow)]

    def wait_running(self, version: int | None, phase: str) -> StateReport:
        """Return a heartbeat that tells of a version in a phase, when it is the latest."""

        def seen() -> StateReport | None:
            state = self.states[-1] if self.states else None
            if state and any((m.version, m.phase) == (version, phase) for m in state.models):
                return state
            return None

        return eventually(seen)

    def wait_settled(self) -> None:
        """Wait until a heartbeat tells that no record waits any more: one of now, not one of before."""
        since_s = time.time()
        eventually(
            lambda: any(s.at_s >= since_s and s.unacknowledged_records == 0 for s in self.states),
            "every record is acknowledged",
            timeout_s=60.0,
        )

    def away(self) -> None:
        """Leave the broker: devices get no answer to anything."""
        self._client.disconnect()
        self._client.loop_stop()

    def back(self) -> None:
        """Come to the broker."""
        ready = threading.Event()
        # A client of paho's cannot be used twice.
        client = self._client = paho.Client(CallbackAPIVersion.VERSION2, HUB_ACCOUNT)
        client.username_pw_set(HUB_ACCOUNT, self._broker.passwords[HUB_ACCOUNT])
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda connected, *_: connected.subscribe(HUB_SUBSCRIPTION, qos=1)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = self._on_message
        client.on_socket_open = _send_at_once
        client.connect(HOST, self._broker.port)
        client.loop_start()
        assert ready.wait(10)

    def renew(self) -> None:
        """Begin anew at the broker: what a device sent before it ended does not come any more."""
        self.away()
        self.back()

    def move(self, broker: AnyBroker) -> None:
        """Go to another broker, which knows nothing of the one before."""
        self.away()
        self._broker = broker
        self.back()

    def close(self) -> None:
        """Go away for good.

        Raises:
            Exception: What went wrong here while a message was taken.
        """
        self._enrolment.close()
        self.away()
        self._check()

    def _check(self) -> None:
        """Raise what went wrong in the thread that takes messages: nobody else would hear of it."""
        if self._faults:
            raise self._faults[0]

    # The protocol ------------------------------------------------------------

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            self._take(message)
        except Exception as error:
            self._faults.append(error)

    def _take(self, message: paho.MQTTMessage) -> None:
        device_id, channel = parse_up(message.topic)
        payload = bytes(message.payload)
        if channel is Up.HELLO:
            self.hellos.append(decode(payload, Hello))
            assignment = self._assignments.get(device_id)
            if assignment is not None and channel not in self.silent:
                self.send(device_id, Down.ASSIGNMENT, assignment)
        elif channel is Up.STATE:
            self.states.append(decode(payload, StateReport))
        elif channel is Up.RECORD:
            self._store(device_id, decode(payload, Record))
        elif channel is Up.SAMPLE:
            self._keep(device_id, decode(payload, SampleMessage))
        elif channel is Up.WANT:
            self._send_chunks(decode(payload, Want))
        elif channel is Up.FETCH:
            self._send_file(device_id, decode(payload, FetchRequest))

    def _store(self, device_id: str, record: Record) -> None:
        if Up.RECORD in self.silent:
            return
        self.arrivals_s.append(time.monotonic())
        if (record.stream, record.number) not in self._stored:
            self._stored.add((record.stream, record.number))
            self.records.append(record)
        if self.lose_ack(record):
            return
        self.send(device_id, Down.ACK, encode(Ack(record.stream, (record.number,))))

    def _keep(self, device_id: str, message: SampleMessage) -> None:
        if Up.SAMPLE in self.silent:
            return
        if message not in self.samples:
            self.samples.append(message)
        self.send(device_id, Down.ACK, encode(Ack(message.stream, (message.number,))))

    def _send_chunks(self, want: Want) -> None:
        self.wants.append(want)
        blob = self.blobs.get(want.sha256)
        if blob is None or Up.WANT in self.silent:
            return
        for number in indices_of(want.missing, chunk_count(len(blob))):
            data = blob[number * CHUNK_SIZE_BYTES : (number + 1) * CHUNK_SIZE_BYTES]
            altered = self.alter_chunk(want.sha256, number, data)
            if altered is not None:
                self.chunks_sent += 1
                self.publish(chunk(want.sha256, number), altered)

    def _send_file(self, device_id: str, request: FetchRequest) -> None:
        self.fetches.append(request.path)
        if Up.FETCH in self.silent:
            return
        data = self.alter_file(request.path, self.repository.files.get(request.path))
        if data is None:
            answer = FileAnswer(request.request_id, None)
        else:
            part = data[request.offset : request.offset + FILE_PART_SIZE_BYTES]
            answer = FileAnswer(request.request_id, len(data), part)
        self.send(device_id, Down.FILE, encode(answer))

    def enrol(self, request: EnrolmentRequest) -> EnrolmentAnswer:
        """Answer an enrolment request."""
        if request.device_id not in self._broker.passwords:
            self._broker.passwords[request.device_id] = f"password-of-{request.device_id}"
            self._broker.apply_accounts()
        access = BrokerAccess(
            "", self._broker.port, request.device_id, self._broker.passwords[request.device_id]
        )
        return EnrolmentAnswer(request.device_id, access, self.repository.root)


def _send_at_once(_client: paho.Client, _userdata: Any, sock: Any) -> None:
    """Switch off Nagle's algorithm, which would hold back small messages."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
