"""A batch of messages made ready for the store: sorted by topic, limited, decoded and checked.

=====================  =====================================================================================
channel                what becomes of a device's messages within a batch
=====================  =====================================================================================
hello, state           the newest that can be understood counts: each says everything again
presence               likewise; whether the device is online says the last of these three
record                 each is stored, once for its stream and number
want, fetch, sample    each is handed on after the batch is stored
=====================  =====================================================================================

What cannot be taken in becomes a dead letter with its cause, and stops nothing else. If it is a record whose
number can be read, it is acknowledged all the same: sending it again would not help. Records, wants, fetches
and samples beyond a device's limit are left out, and not acknowledged (`hub.floods`); hello, state and
presence that can be understood are always taken, so that a device in quarantine is still seen.

Of a telemetry window the head is checked: that its fields are of their types and its bundle is that of the
version. Digests of versions never change, so those that were looked up are kept; so are names that passed
their pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from fleet.protocol import messages, shadow, topics
from fleet.protocol.errors import InvalidInput, InvalidMessage, MusterError, NotFound
from fleet.protocol.fields import Stream
from fleet.protocol.heads import RecordHead, WindowHead, read_head
from fleet.protocol.messages import Hello, Presence, StateReport
from fleet.protocol.names import Name
from fleet.protocol.records import Measurement, ShadowReport
from fleet.protocol.topics import Up
from fleet.variants import check_measurement
from hub.mqtt_packets import Published
from hub.store.intake_rows import Intake, RecordKey, Said
from hub.store.rows import DeadLetter, IncomingRecord

MAX_DEAD_LETTER_BYTES = 4096
MAX_KNOWN = 100_000
"""Entries of each of the memories below; a full one begins anew."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_SELF = frozenset({Up.HELLO, Up.STATE, Up.PRESENCE})
"""What a device says of itself."""


class Request(NamedTuple):
    """A message that is handed on."""

    device_id: str
    channel: Up
    topic: str
    payload: bytes


class Batch(msgspec.Struct):
    """What messages come to, see the head of this file.

    Attributes:
        now_s: When they were received.
        records: To be stored.
        letters: What could not be taken in.
        objections: Of records that contradict themselves, by record.
        devices: What devices said of themselves.
        requests: What is handed on, in the order of arrival of each device.
        acknowledged: Numbers of records, by device and stream.
        taken: How many messages were understood.
        arrived: How many there were, by channel.
    """

    now_s: float
    records: list[IncomingRecord] = []
    letters: list[DeadLetter] = []
    objections: dict[RecordKey, DeadLetter] = {}
    devices: dict[str, Said] = {}
    requests: list[Request] = []
    acknowledged: dict[tuple[str, str], list[int]] = {}
    taken: int = 0
    arrived: dict[Up, int] = {}

    def intake(self, dead_letters_kept: int) -> Intake:
        """Return what the store has to take in."""
        return Intake(
            now_s=self.now_s,
            records=self.records,
            letters=self.letters,
            objections=self.objections,
            devices=self.devices,
            dead_letters_kept=dead_letters_kept,
        )

    def letter(self, device_id: str | None, topic: str, payload: bytes, error: MusterError) -> DeadLetter:
        """Return a message as a dead letter."""
        beginning = payload[:MAX_DEAD_LETTER_BYTES]
        return DeadLetter(topic[:256], self.now_s, error.cause(), beginning, device_id)


class BatchReader:
    """Makes batches ready; for one thread at a time.

    Args:
        digest: Returns the digest of a version's bundle; raises `NotFound`.
        admit: Returns how many of a device's messages are taken, see `hub.floods.Floods.admit`.
    """

    def __init__(
        self,
        digest: Callable[[str, int], str],
        admit: Callable[[str, Sequence[bytes], float], int],
    ) -> None:
        self._digest = digest
        self._admit = admit
        self._routes: dict[str, tuple[str, Up]] = {}
        self._digests: dict[tuple[str, int], str] = {}
        self._streams: set[str] = set()
        self._variants: set[str] = set()
        self._seen = WindowHead(0.0, 0.0, "", 0, "", "")  # the last window that was good: the next is like it

    def read(self, published: Sequence[Published], now_s: float) -> Batch:
        """Sort, limit, decode and check messages in the order of their arrival."""
        batch = Batch(now_s)
        by_topic: dict[str, list[bytes]] = {}
        for message in published:
            payloads = by_topic.get(message.topic)
            if payloads is None:
                by_topic[message.topic] = [message.payload]
            else:
                payloads.append(message.payload)
        told = []
        for topic, payloads in by_topic.items():
            try:
                device_id, channel = self._route(topic)
            except InvalidInput as error:
                self._refuse(batch, topics.publisher(topic), topic, payloads, error)
                continue
            batch.arrived[channel] = batch.arrived.get(channel, 0) + len(payloads)
            if channel in _SELF:
                told.append(topic)
                continue
            del payloads[self._admit(device_id, payloads, now_s) :]
            if channel is Up.RECORD:
                self._records(batch, device_id, topic, payloads)
            else:
                batch.taken += len(payloads)
                batch.requests += [Request(device_id, channel, topic, payload) for payload in payloads]
        if told:
            self._said(batch, published, set(told), by_topic)
        return batch

    def _records(self, batch: Batch, device_id: str, topic: str, payloads: Sequence[bytes]) -> None:
        now_s, records, streams = batch.now_s, batch.records, self._streams
        numbers: list[int] = []
        stream, seen = "", self._seen
        for data in payloads:
            try:
                head = read_head(data)
                if head.stream != stream:
                    if head.stream not in streams:
                        _learn(streams, head.stream, Stream)
                    stream = head.stream
                    numbers = batch.acknowledged.setdefault((device_id, stream), [])
                numbers.append(head.number)
                body = head.body
                if type(body) is not WindowHead:
                    self._check_rare(batch, device_id, topic, head, data)
                elif (
                    body.manifest_sha256 != seen.manifest_sha256
                    or body.model != seen.model
                    or body.version != seen.version
                    or body.variant != seen.variant
                ):
                    self._check_window(body)
                    self._seen = seen = body
                records.append(IncomingRecord(device_id, now_s, head, data))
            except (InvalidInput, NotFound) as error:
                batch.letters.append(batch.letter(device_id, topic, data, error))
                batch.taken -= 1
        batch.taken += len(payloads)

    def _check_window(self, window: WindowHead) -> None:
        version = (window.model, window.version)
        digest = self._digests.get(version) or self._looked_up(version)
        if window.manifest_sha256 != digest:
            raise InvalidMessage(
                f"The window is of bundle {window.manifest_sha256[:12]!r}…; "
                f"{window.model} version {window.version} is {digest[:12]}…."
            )
        if window.variant not in self._variants:
            _learn(self._variants, window.variant, Name)

    def _check_rare(self, batch: Batch, device_id: str, topic: str, head: RecordHead, data: bytes) -> None:
        body = head.body
        if isinstance(body, Measurement):
            check_measurement(body, self._looked_up((body.model, body.version)))
        elif isinstance(body, ShadowReport):
            shadow.check_report(body, self._looked_up((body.model, body.version)))
            why = shadow.contradiction(body)
            if why is not None:
                error = InvalidMessage(f"The report of a shadow contradicts itself: {why}.")
                key = (device_id, head.stream, head.number)
                batch.objections[key] = batch.letter(device_id, topic, data, error)

    def _looked_up(self, version: tuple[str, int]) -> str:
        digest = self._digests.get(version)
        if digest is None:
            digest = _keep(self._digests, version, self._digest(*version))
        return digest

    def _route(self, topic: str) -> tuple[str, Up]:
        route = self._routes.get(topic)
        if route is None:
            route = _keep(self._routes, topic, topics.parse_up(topic))
        return route

    def _said(
        self,
        batch: Batch,
        published: Sequence[Published],
        told: set[str],
        by_topic: dict[str, list[bytes]],
    ) -> None:
        """Note what devices said of themselves, the topic that was spoken on last at the end."""
        last = {message.topic: None for message in reversed(published) if message.topic in told}
        for topic in reversed(last):
            device_id, channel = self._route(topic)
            for payload in reversed(by_topic[topic]):
                try:
                    said = batch.devices.get(device_id) or Said()
                    _note(said, device_id, channel, payload)
                except InvalidInput as error:
                    self._refuse(batch, device_id, topic, [payload], error)
                else:
                    batch.devices[device_id] = said
                    batch.taken += len(by_topic[topic])
                    break

    def _refuse(
        self, batch: Batch, device_id: str | None, topic: str, payloads: Sequence[bytes], error: InvalidInput
    ) -> None:
        """Keep messages as dead letters, as many as their device may send: a flood of nonsense is a flood."""
        if device_id is not None:
            payloads = payloads[: self._admit(device_id, payloads, batch.now_s)]
        batch.letters += [batch.letter(device_id, topic, payload, error) for payload in payloads]


def _learn(known: set[str], text: str, kind: object) -> None:
    """Check a text against its pattern, and remember that it passed."""
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError as error:
        raise InvalidMessage(f"A Record cannot be understood: {text!r:.80}: {error}.") from error
    if len(known) >= MAX_KNOWN:
        known.clear()
    known.add(text)


def _keep(known: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[key] = value
    return value


def _note(said: Said, device_id: str, channel: Up, payload: bytes) -> None:
    if channel is Up.PRESENCE:
        said.online = messages.decode(payload, Presence).online
        return
    if channel is Up.STATE:
        said.report = messages.decode(payload, StateReport)
    else:
        hello = messages.decode(payload, Hello)
        if hello.protocol != messages.PROTOCOL_VERSION:
            raise InvalidMessage(
                f"{device_id} speaks protocol {hello.protocol}; this hub speaks {messages.PROTOCOL_VERSION}."
            )
        said.hello = hello
    said.online = True
