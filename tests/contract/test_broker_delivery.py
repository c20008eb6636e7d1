"""What a broker carries: sizes, sessions, second connections, and what it survives."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from fleet.protocol.messages import MAX_MESSAGE_SIZE_BYTES
from fleet.protocol.topics import HUB_ACCOUNT, Down, Up, device_subscription, down, up
from hub.broker.kinds import KINDS, Kind
from tests.support.brokers import HOST, RunningBroker, running_broker
from tests.support.mqtt_client import Client, Refused

DEADLINE_S = 15.0


def test_the_largest_message_is_carried_both_ways(broker: RunningBroker) -> None:
    device, payload = broker.new_device(), os.urandom(MAX_MESSAGE_SIZE_BYTES)
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, device) as client:
        assert hub.subscribe("muster/v1/d/+/up/+")
        assert client.subscribe(device_subscription(device))
        client.publish(up(device, Up.RECORD), payload)
        assert hub.receive().payload == payload
        hub.publish(down(device, Down.FILE), payload)
        assert client.receive().payload == payload


def test_many_messages_arrive_complete(broker: RunningBroker) -> None:
    device = broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, device) as client:
        assert client.subscribe(device_subscription(device))
        for number in range(300):
            hub.publish(down(device, Down.FILE), struct.pack(">I", number) + bytes(1000), wait=False)
        numbers = {struct.unpack(">I", client.receive().payload[:4])[0] for _ in range(300)}
    assert numbers == set(range(300))


def test_a_larger_message_harms_nobody_else(broker: RunningBroker) -> None:
    device, other = broker.new_device(), broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, other) as bystander:
        assert hub.subscribe("muster/v1/d/+/up/+")
        client = Client(broker, device).wait_connected()
        client.publish(up(device, Up.RECORD), bytes(2 * MAX_MESSAGE_SIZE_BYTES), wait=False)
        assert client.ended.wait(DEADLINE_S), "the broker took a message of twice the allowed size"
        client.close()
        bystander.publish(up(other, Up.STATE), b"still here")
        assert hub.receive().payload == b"still here"
        assert hub.messages.empty()


@pytest.mark.parametrize(
    "packet",
    [
        b"\x10\xff\xff\xff\x7f",  # a CONNECT of 256 MiB
        b"\x10\xff\xff\xff\xff\xff\xff",  # a length that never ends
        b"\x30\x05\x00\x03abc",  # PUBLISH before CONNECT
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\x0c\x00\x04MQTT\x04\xc2\x00\x05\xff\xff",  # a client id longer than its packet
        b"\x10\x10\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x03cam",  # MQTT 5
        b"\x00" * 64,
    ],
)
def test_bytes_that_are_no_handshake_harm_nobody(broker: RunningBroker, packet: bytes) -> None:
    device = broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, device) as client:
        assert hub.subscribe("muster/v1/d/+/up/+")
        with socket.create_connection((HOST, broker.port), timeout=DEADLINE_S) as connection:
            connection.sendall(packet)
            try:
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(64)
            except OSError as error:  # the broker was quicker to hang up
                assert error.errno in {errno.ECONNRESET, errno.ENOTCONN}
                answer = b""
        assert answer[:4] != b"\x20\x02\x00\x00"
        client.publish(up(device, Up.STATE), b"still here")
        assert hub.receive().payload == b"still here"


@pytest.mark.parametrize(
    "packet",
    [
        b"\x82\x05\x00\x01\x00\xff#",  # SUBSCRIBE to a filter longer than its packet
        b"\x82\x02\x00\x01",  # SUBSCRIBE to nothing
        b"\x32\x04\x00\xffab",  # PUBLISH on a topic longer than its packet
        b"\x32\x05\x00\x01#\x00\x01",  # PUBLISH on a wildcard
        b"\x32\x09\x00\x05$SYS/\x00\x01",  # PUBLISH as the broker itself
        b"\x30\x06\x00\x02\xff\xfe..",  # a topic that is not UTF-8
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00",  # a second CONNECT
        b"\x40\x02\xff\xff",  # PUBACK of nothing
        b"\x00\x00\xf0\x00",
        b"\x30\xff\xff\xff\x7f",  # PUBLISH of 256 MiB
    ],
)
def test_what_breaks_the_protocol_harms_nobody_else(broker: RunningBroker, packet: bytes) -> None:
    device, other = broker.new_device(), broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, other) as bystander:
        assert hub.subscribe("muster/v1/d/+/up/+")
        with socket.create_connection((HOST, broker.port), timeout=DEADLINE_S) as connection:
            connection.sendall(_connect_packet(broker, device, flags=0xC2, keep_alive_s=10))
            assert connection.recv(4) == b"\x20\x02\x00\x00"
            connection.sendall(packet)
            bystander.publish(up(other, Up.STATE), b"still here")
            assert hub.receive() == (up(other, Up.STATE), b"still here")
        with Client(broker, device) as again:
            again.publish(up(device, Up.STATE), b"back")
            assert hub.receive() == (up(device, Up.STATE), b"back")


def test_a_second_connection_of_an_account_replaces_the_first(broker: RunningBroker) -> None:
    device = broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub:
        first = Client(broker, device, clean=False).wait_connected()
        assert first.subscribe(device_subscription(device))
        with Client(broker, device, clean=False) as second:
            assert first.ended.wait(DEADLINE_S)
            assert second.subscribe(device_subscription(device))
            for _ in range(3):  # the session stays with its new connection
                hub.publish(down(device, Down.ACK), b"to the second")
                assert second.receive().payload == b"to the second"
            assert first.messages.empty()


def test_a_session_keeps_its_subscriptions_while_the_device_is_away(broker: RunningBroker) -> None:
    device = broker.new_device()
    with Client(broker, device, clean=False) as client:
        assert client.subscribe(device_subscription(device))
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, device, clean=False) as client:
        hub.publish(down(device, Down.ACK), b"after the return")
        assert client.receive().payload == b"after the return"


def test_what_comes_for_an_absent_session_waits(broker: RunningBroker) -> None:
    device = broker.new_device()
    with Client(broker, device, clean=False) as client:
        assert client.subscribe(device_subscription(device))
    with Client(broker, HUB_ACCOUNT) as hub:
        hub.publish(down(device, Down.ACK), b"while away")
    with Client(broker, device, clean=False) as client:
        assert client.receive().payload == b"while away"


def test_a_silent_connection_is_ended_and_its_will_published(broker: RunningBroker) -> None:
    device = broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub:
        assert hub.subscribe("muster/v1/d/+/up/+")
        with socket.create_connection((HOST, broker.port), timeout=DEADLINE_S) as connection:
            will = (up(device, Up.PRESENCE), "gone")
            connection.sendall(_connect_packet(broker, device, *will, flags=0xC6, keep_alive_s=1))
            assert connection.recv(4) == b"\x20\x02\x00\x00"
            assert hub.receive().payload == b"gone"  # after one and a half times the keep-alive of 1 s


@pytest.mark.parametrize("kind", KINDS)
def test_accounts_are_the_only_ones_even_after_a_restart_of_the_broker(kind: Kind, tmp_path: Path) -> None:
    with running_broker(kind, tmp_path) as broker:
        device = broker.new_device()
        password = broker.passwords[device]
        with Client(broker, device):
            pass
    with running_broker(kind, tmp_path) as broker:
        with pytest.raises(Refused):
            Client(broker, device, password=password).wait_connected()
        with Client(broker, HUB_ACCOUNT):
            pass


def _connect_packet(broker: RunningBroker, device: str, *will: str, flags: int, keep_alive_s: int) -> bytes:
    texts = (device, *will, device, broker.passwords[device])
    body = b"\x00\x04MQTT\x04" + struct.pack(">BH", flags, keep_alive_s)
    body += b"".join(struct.pack(">H", len(text)) + text.encode() for text in texts)
    return b"\x10" + bytes((len(body) % 128 | 128, len(body) // 128)) + body
