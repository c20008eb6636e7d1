"""MQTT 3.1.1 packets as bytes, and bytes as packets: no sockets, no clock.

Only what the hub speaks: it publishes at QoS 0 and 1, subscribes at QoS 1, and gets both; and what simulated
devices speak besides: a last will, and ends of subscriptions. Sections are of the OASIS standard "MQTT
Version 3.1.1".

::

    byte 1            bytes 2 to 5                 then, "remaining length" bytes
    type << 4 | flags remaining length (2.2.3):    variable header and payload
                      7 bits a byte, lowest first

======  ===========  ===============  ==========================================================
byte 1  packet       who sends it     what follows
======  ===========  ===============  ==========================================================
0x10    CONNECT      the hub          protocol, flags, keep alive, client id, will, account, password
0x20    CONNACK      the broker       session present, return code
0x30    PUBLISH      both, QoS 0      topic, payload
0x32    PUBLISH      both, QoS 1      topic, packet id, payload; 0x08 more if sent again
0x40    PUBACK       both             packet id
0x82    SUBSCRIBE    the hub          packet id, filter, QoS
0x90    SUBACK       the broker       packet id, granted QoS or 0x80
0xA2    UNSUBSCRIBE  devices          packet id, filter
0xB0    UNSUBACK     the broker       packet id
0xC0    PINGREQ      the hub          nothing
0xD0    PINGRESP     the broker       nothing
0xE0    DISCONNECT   the hub          nothing
======  ===========  ===============  ==========================================================

What a reader holds back is bounded: a packet that is longer than allowed is cut off there, and the rest of it
is thrown away as it comes. So its sender gets its answer, and a message that no one can take never blocks
those behind it. Everything else that breaks the standard ends the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from fleet.protocol.errors import InvalidMessage

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP = 0x20, 0x30, 0x40, 0x90, 0xB0, 0xD0
PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"
LAST_PACKET_ID = 0xFFFF
REFUSED = 0x80
"""In a SUBACK, in place of a granted QoS."""

RETURN_CODES = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not accept the client id",
    3: "it is not available",
    4: "bad user name or password, not authorized",
    5: "not authorized",
}
"""Section 3.2.2.3."""

_PUBACK_HEAD = b"\x40\x02"
_WILL_AT_QOS_1, _PASSWORD, _USER_NAME = 0x0C, 0x40, 0x80
_SIZES = {CONNACK: 2, PUBACK: 2, UNSUBACK: 2, PINGRESP: 0}


class Published(msgspec.Struct, frozen=True, gc=False):
    """A PUBLISH.

    Attributes:
        topic: Where; what is not UTF-8 in it is replaced.
        payload: What; cut off if the packet is too long.
        packet_id: Two bytes to acknowledge it with, see `pubacks`; none at QoS 0.
    """

    topic: str
    payload: bytes
    packet_id: bytes


class Answer(NamedTuple):
    """Any other packet that a broker sends.

    Attributes:
        kind: `CONNACK`, `PUBACK`, `SUBACK`, `UNSUBACK` or `PINGRESP`.
        content: What follows the remaining length.
    """

    kind: int
    content: bytes

    @property
    def packet_id(self) -> int:
        """Which packet is acknowledged, by PUBACK and SUBACK."""
        return int.from_bytes(self.content[:2])


class PacketReader:
    """Takes bytes as they come and gives whole packets.

    Args:
        limit_bytes: Longest packet that is kept whole, without its first byte and remaining length.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._needed_bytes = 2
        self._skipping_bytes = 0

    def feed(self, data: bytes) -> tuple[list[Published], list[Answer]]:
        """Take bytes; return what they complete: what was published, and answers, each in their order.

        Raises:
            InvalidMessage: They break the standard; the connection has to be closed.
        """
        if self._skipping_bytes:
            skipped = min(self._skipping_bytes, len(data))
            self._skipping_bytes -= skipped
            data = data[skipped:]
        if self._parts:
            self._parts.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._needed_bytes:  # so that a long packet in many parts is joined once
                return [], []
            data = b"".join(self._parts)
        published: list[Published] = []
        answers: list[Answer] = []
        rest = self._read(data, published, answers)
        self._parts = [rest] if rest else []
        self._held_bytes = len(rest)
        return published, answers

    def _read(self, data: bytes, published: list[Published], answers: list[Answer]) -> bytes:
        """Put whole packets into the lists; return what is left of the data."""
        at, size = 0, len(data)
        while size - at >= 2:
            kind, length, begin = data[at], data[at + 1], at + 2
            if length > 0x7F:
                decoded = _long_length(data, at + 1)
                if decoded is None:
                    break
                length, begin = decoded
            kept = min(length, self._limit_bytes)
            end = begin + kept
            if end > size:
                self._needed_bytes = end - at
                return data[at:]
            if kind & 0xF0 == PUBLISH:
                published.append(_published(data, kind, begin, end))
            elif kept == length:
                answers.append(_answer(kind, data[begin:end]))
            else:
                raise InvalidMessage(f"The broker sent a packet of kind {kind:#04x} with {length} bytes.")
            at = begin + length
            if at > size:
                self._skipping_bytes = at - size
                break
        self._needed_bytes = 2
        return data[at:]


def connect(
    client_id: str,
    username: str,
    password: str,
    *,
    keepalive_s: int,
    will: tuple[str, bytes] | None = None,
) -> bytes:
    """Return CONNECT with a session that outlives the connection (section 3.1).

    Args:
        client_id: Names the session.
        username: The account.
        password: Its password.
        keepalive_s: How long nothing may come before the broker gives the connection up.
        will: Topic and payload of the last will; None for none.
    """
    flags, last = _USER_NAME | _PASSWORD, b""
    if will is not None:
        topic, payload = will
        flags |= _WILL_AT_QOS_1
        last = _text(topic) + len(payload).to_bytes(2) + payload
    head = _text("MQTT") + bytes((4, flags)) + keepalive_s.to_bytes(2)
    return _packet(0x10, head + _text(client_id) + last + _text(username) + _text(password))


def subscribe(packet_id: int, topic_filter: str) -> bytes:
    """Return SUBSCRIBE to one filter at QoS 1 (section 3.8)."""
    return _packet(0x82, packet_id.to_bytes(2) + _text(topic_filter) + b"\x01")


def unsubscribe(packet_id: int, topic_filter: str) -> bytes:
    """Return UNSUBSCRIBE from one filter (section 3.10)."""
    return _packet(0xA2, packet_id.to_bytes(2) + _text(topic_filter))


def publish(topic: str, payload: bytes, packet_id: int | None = None) -> bytes:
    """Return PUBLISH: at QoS 1 with a packet id, else at QoS 0 (section 3.3)."""
    if packet_id is None:
        return _packet(0x30, _text(topic) + payload)
    return _packet(0x32, _text(topic) + packet_id.to_bytes(2) + payload)


def pubacks(messages: Iterable[Published]) -> bytes:
    """Return the PUBACKs of messages in their order, which is theirs by section 4.6."""
    return _PUBACK_HEAD.join([b"", *(message.packet_id for message in messages if message.packet_id)])


def _published(data: bytes, kind: int, begin: int, end: int) -> Published:
    after_topic = begin + 2 + (data[begin] << 8 | data[begin + 1]) if end - begin >= 2 else end + 1
    qos = kind & 0x06
    after_id = after_topic + (2 if qos else 0)
    if after_id > end or qos > 0x02:
        raise InvalidMessage("The broker sent a PUBLISH that breaks the standard.")
    return Published(
        str(data[begin + 2 : after_topic], "utf-8", "replace"),
        data[after_id:end],
        data[after_topic:after_id],
    )


def _answer(kind: int, content: bytes) -> Answer:
    size = _SIZES.get(kind)
    if size != len(content) and not (kind == SUBACK and len(content) >= 3):
        raise InvalidMessage(f"The broker sent a packet of kind {kind:#04x} with {len(content)} bytes.")
    return Answer(kind, content)


def _long_length(data: bytes, at: int) -> tuple[int, int] | None:
    """Return a remaining length of two to four bytes and where it ends; None if it is not all there."""
    length = 0
    for place, byte in enumerate(data[at : at + 4]):
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return length, at + place + 1
        if place == 3:
            raise InvalidMessage("The broker sent a remaining length that does not end.")
    return None


def _packet(first: int, content: bytes) -> bytes:
    length, head = len(content), bytearray((first,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + content


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2) + raw
