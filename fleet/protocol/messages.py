"""The messages between devices and hub, and their encoding: MessagePack, validated while decoding.

Which message travels on which topic stands in `fleet.protocol.topics`. Every message can be lost, doubled
or late. What matters is therefore either repeated (state) or kept by the device until the hub
acknowledges it by number (records; what they hold stands in `fleet.protocol.records`). Fields that a
release does not know are ignored, so that hub and devices can be updated one after the other.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from fleet.privacy.noise import MOST_EPSILON
from fleet.protocol.board import BoardWindow
from fleet.protocol.capture import SampleCounts
from fleet.protocol.chunks import MAX_RANGES
from fleet.protocol.errors import InvalidMessage, MessageTooLarge
from fleet.protocol.fields import Count, Stream, Text, UnixTime
from fleet.protocol.names import Name, Sha256
from fleet.protocol.records import RecordBody

PROTOCOL_VERSION = 1
MAX_MESSAGE_SIZE_BYTES = 256 * 1024
MAX_PACKET_SIZE_BYTES = MAX_MESSAGE_SIZE_BYTES + 1024
"""Largest MQTT packet that either side or a broker takes in: a message and what MQTT puts before it. That is
5 bytes of header, 4 of lengths and numbers, and a topic, which with its names stays below 200."""
FILE_PART_SIZE_BYTES = 64 * 1024
"""Most bytes of a trust metadata file in one answer."""


class Capabilities(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device can run.

    Attributes:
        agent_version: Release of the agent.
        architecture: As ``platform.machine()`` names it, such as ``aarch64``.
        runtimes: Inference runtimes and their versions.
        memory_bytes: The most that the agent may have: physical memory, or what a control group allows.
        free_bytes: Free space where models are installed.
        hardware: The board, or else the processor, as the system names it; empty from agents that do not
            choose among alternatives.
        obeys_wishes: Whether it carries out the wishes of an assignment, see `fleet.protocol.wishes`; one
            that does not would refuse an assignment that has some.
        captures_samples: Whether its owner lets it capture inputs, see `fleet.protocol.capture`; one that
            does not know of that would refuse an assignment with a capture policy.
        keeps_windows: Whether it keeps to the maintenance window and the mode of an order, see
            `fleet.protocol.maintenance`; one that does not know of them would refuse an assignment with them.
        noises_counts: Whether it can put noise on its counts, see `fleet.privacy`; one that cannot would
            refuse an assignment that wishes it.
        count_noise_epsilon: How private the counts are that it sends now; 0 if they are exact.
    """

    agent_version: Text
    architecture: Text
    runtimes: dict[Name, Text]
    memory_bytes: Count
    free_bytes: Count
    hardware: Text = ""
    obeys_wishes: bool = False
    captures_samples: bool = False
    keeps_windows: bool = False
    noises_counts: bool = False
    count_noise_epsilon: Annotated[float, msgspec.Meta(ge=0, le=MOST_EPSILON)] = 0.0


class ModelState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device holds of one model.

    Attributes:
        model: Name of the model.
        version: The version that answers now; None before the first.
        manifest_sha256: Its bundle; None before the first.
        variant: Its variant; None before the first.
        phase: Where the device is in its life cycle, see ``docs/reference/device-life.md``.
        deployment_id: The order it carried out last, or works on.
        waiting_for: What stands against swapping the staged version in now; None if nothing does.
    """

    model: Name
    version: Count | None
    manifest_sha256: Sha256 | None
    variant: Name | None
    phase: Text
    deployment_id: Name | None
    waiting_for: Text | None = None


class Hello(msgspec.Struct, frozen=True):
    """Sent after each connection to the broker. The hub answers with the current assignment if it is newer.

    Attributes:
        protocol: Version of the protocol.
        sequence: Highest assignment sequence number accepted; 0 for none.
        capabilities: What the device can run.
    """

    protocol: Count
    sequence: Count
    capabilities: Capabilities


class StateReport(msgspec.Struct, frozen=True):
    """The heartbeat: what the device runs now. Repeats itself, so none of them is precious.

    Attributes:
        at_s: Device time, Unix seconds.
        sequence: Highest assignment sequence number accepted.
        models: State of each model.
        unacknowledged_records: Records that wait in the outbox.
        board: What the board said of itself lately; left out before the first window has ended.
        samples: How capturing samples goes; left out where the device's owner does not allow it.
    """

    at_s: UnixTime
    sequence: Count
    models: Annotated[tuple[ModelState, ...], msgspec.Meta(max_length=64)]
    unacknowledged_records: Count = 0
    board: BoardWindow | msgspec.UnsetType = msgspec.UNSET
    samples: SampleCounts | msgspec.UnsetType = msgspec.UNSET


class Presence(msgspec.Struct, frozen=True):
    """Whether the device is connected; ``online=False`` is the connection's last will."""

    online: bool


class Record(msgspec.Struct, frozen=True):
    """One entry of the device's outbox: sent until acknowledged, stored by the hub exactly once.

    Attributes:
        stream: Drawn when the outbox was created: numbers of a new outbox are not taken for old ones.
        number: Rises within the stream. (stream, number) identifies the record for ever.
        body: The contents.
    """

    stream: Stream
    number: Count
    body: RecordBody


class Ack(msgspec.Struct, frozen=True):
    """The hub has stored these records, or samples; the device may forget them."""

    stream: Stream
    numbers: Annotated[tuple[Count, ...], msgspec.Meta(max_length=1024)]


class Want(msgspec.Struct, frozen=True):
    """Chunks of one blob that the device still misses, as ``(first, count)`` ranges."""

    sha256: Sha256
    missing: Annotated[tuple[tuple[Count, Count], ...], msgspec.Meta(max_length=MAX_RANGES)]


class FetchRequest(msgspec.Struct, frozen=True):
    """Ask for a part of a file of the image repository.

    Attributes:
        request_id: Returned with the answer.
        path: ``metadata/…`` or ``targets/…``, relative to the repository.
        offset: First byte wanted.
    """

    request_id: Count
    path: Text
    offset: Count = 0


class FileAnswer(msgspec.Struct, frozen=True):
    """A part of a file, at most `FILE_PART_SIZE_BYTES`.

    Attributes:
        request_id: From the request.
        size_bytes: Size of the whole file; None if there is no such file.
        data: The bytes from the requested offset on.
    """

    request_id: Count
    size_bytes: Count | None
    data: bytes = b""


_Message = TypeVar("_Message", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """Return the message's bytes."""
    return msgspec.msgpack.encode(message)


def decode(data: bytes, kind: type[_Message]) -> _Message:
    """Return the message in the bytes.

    Args:
        data: What was received.
        kind: The message that the topic carries.

    Raises:
        MessageTooLarge: It is larger than any message may be.
        InvalidMessage: It is not such a message.
    """
    if len(data) > MAX_MESSAGE_SIZE_BYTES:
        raise MessageTooLarge(
            f"A {kind.__name__} of {len(data)} bytes was received; {MAX_MESSAGE_SIZE_BYTES} are allowed."
        )
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"A {kind.__name__} cannot be understood: {error}.") from error


# msgspec learns a type at its first use, and crashes if two threads use it first at once: so it learns here.
for _kind in (Hello, StateReport, Presence, Record, Want, FetchRequest, FileAnswer, Ack):
    msgspec.msgpack.Decoder(_kind)
