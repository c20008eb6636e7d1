"""MQTT packets: byte vectors of the standard, any split of a stream, oversize, and bytes that are none."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.protocol.errors import InvalidMessage
from hub import mqtt_packets as packets
from hub.mqtt_packets import Answer, PacketReader, Published

LIMIT = 500
topics = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
messages = st.builds(
    Published, topics, st.binary(max_size=200), st.integers(1, 65535).map(lambda number: number.to_bytes(2))
)


def as_sent(message: Published) -> bytes:
    """Return a message as the broker sends it at QoS 1."""
    return packets.publish(message.topic, message.payload, int.from_bytes(message.packet_id))


def read(data: bytes, *, step: int, limit: int = LIMIT) -> tuple[list[Published], list[Answer]]:
    """Feed bytes to a reader in parts."""
    reader = PacketReader(limit)
    published: list[Published] = []
    answers: list[Answer] = []
    for begin in range(0, len(data), step):
        more, others = reader.feed(data[begin : begin + step])
        published += more
        answers += others
    return published, answers


def test_the_bytes_of_what_the_hub_sends() -> None:
    connect = packets.connect("hub", "hub", "pw", keepalive_s=30)
    assert connect == b"\x10\x18\x00\x04MQTT\x04\xc0\x00\x1e\x00\x03hub\x00\x03hub\x00\x02pw"
    assert packets.subscribe(1, "a/+") == b"\x82\x08\x00\x01\x00\x03a/+\x01"
    assert packets.publish("a/b", b"xyz") == b"\x30\x08\x00\x03a/bxyz"
    assert packets.publish("a/b", b"xyz", 258) == b"\x32\x0a\x00\x03a/b\x01\x02xyz"
    assert packets.publish("a", bytes(200))[:3] == b"\x30\xcb\x01"
    acknowledged = [
        Published("a", b"", b"\x00\x07"),
        Published("a", b"", b""),
        Published("b", b"", b"\x01\x00"),
    ]
    assert packets.pubacks(acknowledged) == b"\x40\x02\x00\x07\x40\x02\x01\x00"
    assert packets.pubacks([]) == b""


def test_the_bytes_of_what_a_broker_sends() -> None:
    data = (
        b"\x20\x02\x01\x00"  # CONNACK, session present
        b"\x90\x03\x00\x01\x01"  # SUBACK
        b"\x32\x07\x00\x01a\x00\x09hi"  # PUBLISH at QoS 1
        b"\x3a\x07\x00\x01a\x00\x09hi"  # sent again
        b"\x31\x05\x00\x01bhi"  # PUBLISH at QoS 0, retained
        b"\x40\x02\x12\x34"  # PUBACK
        b"\xd0\x00"  # PINGRESP
    )
    published, answers = read(data, step=len(data))
    assert published == [Published("a", b"hi", b"\x00\x09")] * 2 + [Published("b", b"hi", b"")]
    assert [answer.kind for answer in answers] == [
        packets.CONNACK,
        packets.SUBACK,
        packets.PUBACK,
        packets.PINGRESP,
    ]
    assert answers[2].packet_id == 0x1234


@given(st.lists(messages, max_size=10), st.integers(1, 70))
def test_whatever_the_split_the_messages_come_out(sent: list[Published], step: int) -> None:
    data = b"".join(as_sent(message) + packets.PINGREQ.replace(b"\xc0", b"\xd0") for message in sent)
    published, answers = read(data, step=step)
    assert published == sent
    assert len(answers) == len(sent)


@given(messages, messages, st.integers(0, 5000), st.integers(1, 3000))
def test_an_oversize_message_is_cut_off_and_what_follows_it_comes(
    large: Published, after: Published, more: int, step: int
) -> None:
    payload = large.payload + bytes(LIMIT + more)
    data = as_sent(Published(large.topic, payload, large.packet_id)) + as_sent(after)
    published, _ = read(data, step=step)
    assert published[1:] == [after]
    assert published[0].topic == large.topic
    assert published[0].packet_id == large.packet_id
    assert payload.startswith(published[0].payload)
    assert len(published[0].payload) == LIMIT - 4 - len(large.topic.encode())


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bytes_that_are_no_packets_are_refused_or_waited_for(parts: list[bytes]) -> None:
    reader = PacketReader(LIMIT)
    with suppress(InvalidMessage):
        for part in parts:
            reader.feed(part)


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x00",  # CONNECT, which a broker never sends
        b"\x20\x01\x00",  # CONNACK that is too short
        b"\x34\x05\x00\x01a\x00\x01",  # PUBLISH at QoS 2
        b"\x36\x05\x00\x01a\x00\x01",  # at QoS 3
        b"\x32\x04\x00\x02ab",  # at QoS 1 without a packet id
        b"\x30\x03\x00\x09a",  # with a topic longer than itself
        b"\x30\x01\x00",  # without a topic
        b"\x30\xff\xff\xff\xff\x01",  # with a length that does not end
        b"\xd0\xff\xff\xff\x7f" + bytes(LIMIT),  # PINGRESP of 256 MiB
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_what_breaks_the_standard_is_refused(data: bytes, step: int) -> None:
    with pytest.raises(InvalidMessage):
        read(data, step=step)


def test_a_topic_that_is_not_text_is_a_message_that_nobody_knows() -> None:
    published, _ = read(b"\x30\x06\x00\x02\xff\xfe..", step=3)
    assert published == [Published("��", b"..", b"")]
