"""The MQTT topics, and who may use them.

========================================  ===========  ==================================================
topic                                     direction    payload
========================================  ===========  ==================================================
``muster/v1/d/{device}/up/hello``         device → hub  `Hello`: what I can run, the newest order I know
``muster/v1/d/{device}/up/state``         device → hub  `StateReport`: heartbeat with the reported state
``muster/v1/d/{device}/up/record``        device → hub  `Record`: one durable event or telemetry window
``muster/v1/d/{device}/up/sample``        device → hub  `SampleMessage`: one captured input
``muster/v1/d/{device}/up/want``          device → hub  `Want`: chunks of a blob that are still missing
``muster/v1/d/{device}/up/fetch``         device → hub  `FetchRequest`: a part of a trust metadata file
``muster/v1/d/{device}/up/presence``      device → hub  `Presence`: also the connection's last will
``muster/v1/d/{device}/down/assignment``  hub → device  COSE_Sign1 bytes, see `fleet.protocol.assignment`
``muster/v1/d/{device}/down/file``        hub → device  `FileAnswer`
``muster/v1/d/{device}/down/ack``         hub → device  `Ack`: records and samples that the hub has
``muster/v1/blobs/{sha256}/{index}``      hub → all     one chunk of a blob, raw bytes
========================================  ===========  ==================================================

Everything travels at QoS 1 without retaining; acknowledgements of records, which come again, at QoS 0. A
broker account's name is its device id, and so is its MQTT client id, so that no account can take over
another's session.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from fleet.protocol.errors import InvalidMessage, InvalidName
from fleet.protocol.names import checked_name, is_sha256

ROOT = "muster/v1"
HUB_ACCOUNT = "muster-hub"
"""The broker account of the hub; no device may enrol under this name."""

HUB_SUBSCRIPTION = f"{ROOT}/d/+/up/+"


class Up(StrEnum):
    """Channels on which a device speaks to the hub."""

    HELLO = "hello"
    STATE = "state"
    RECORD = "record"
    SAMPLE = "sample"
    WANT = "want"
    FETCH = "fetch"
    PRESENCE = "presence"


class Down(StrEnum):
    """Channels on which the hub speaks to one device."""

    ASSIGNMENT = "assignment"
    FILE = "file"
    ACK = "ack"


class ChunkTopic(NamedTuple):
    """What a chunk's topic says: the blob's digest and the chunk's number."""

    sha256: str
    number: int


def up(device_id: str, channel: Up) -> str:
    """Return the topic on which the device publishes."""
    return f"{ROOT}/d/{device_id}/up/{channel.value}"


def down(device_id: str, channel: Down) -> str:
    """Return the topic on which the hub publishes to the device."""
    return f"{ROOT}/d/{device_id}/down/{channel.value}"


def device_subscription(device_id: str) -> str:
    """Return the filter of everything the hub says to this one device."""
    return f"{ROOT}/d/{device_id}/down/+"


def blob_subscription(sha256: str) -> str:
    """Return the filter of all chunks of one blob."""
    return f"{ROOT}/blobs/{sha256}/+"


def chunk(sha256: str, index: int) -> str:
    """Return the topic of one chunk."""
    return f"{ROOT}/blobs/{sha256}/{index}"


def device_may_publish(device_id: str) -> tuple[str, ...]:
    """Return the filters that a broker lets this device publish to."""
    return (f"{ROOT}/d/{device_id}/up/#",)


def device_may_read(device_id: str) -> tuple[str, ...]:
    """Return the filters that a broker lets this device subscribe to and receive from."""
    return (f"{ROOT}/d/{device_id}/down/#", f"{ROOT}/blobs/#")


def parse_up(topic: str) -> tuple[str, Up]:
    """Return the device id and channel of a topic that a device published to.

    Raises:
        InvalidMessage: The topic is not of that form.
        InvalidName: The device id breaks the naming rule.
    """
    parts = topic.split("/")
    if len(parts) != 6 or parts[:3] != [*ROOT.split("/"), "d"] or parts[4] != "up":
        raise InvalidMessage(f"Topic {topic!r:.120} is not one that devices publish to.")
    try:
        channel = Up(parts[5])
    except ValueError as error:
        raise InvalidMessage(f"Topic {topic!r:.120} names an unknown channel.") from error
    return checked_name(parts[3], "device id"), channel


def publisher(topic: str) -> str | None:
    """Return the only device that a broker lets publish to a topic; None if it lets none."""
    parts = topic.split("/", 5)
    if len(parts) != 6 or parts[:3] != [*ROOT.split("/"), "d"] or parts[4] != "up":
        return None
    try:
        return checked_name(parts[3], "device id")
    except InvalidName:
        return None


def parse_chunk(topic: str) -> ChunkTopic | None:
    """Return what a chunk's topic says, or None if the topic is of another kind.

    Raises:
        InvalidMessage: It is a blob topic with an impossible digest or number.
    """
    prefix = f"{ROOT}/blobs/"
    if not topic.startswith(prefix):
        return None
    sha256, _, index = topic[len(prefix) :].partition("/")
    if not is_sha256(sha256) or not (index.isascii() and index.isdigit()) or len(index) > 9:
        raise InvalidMessage(f"Topic {topic!r:.120} is not a chunk's topic.")
    return ChunkTopic(sha256, int(index))
