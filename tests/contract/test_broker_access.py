"""What a broker lets an account do. On every broker: who may connect, publish, and receive."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest

from fleet.protocol.topics import (
    HUB_ACCOUNT,
    Down,
    Up,
    blob_subscription,
    chunk,
    device_subscription,
    down,
    up,
)
from tests.support.brokers import RunningBroker
from tests.support.mqtt_client import Client, Message, Refused

BLOB = hashlib.sha256(b"a blob").hexdigest()


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_wrong_password_is_refused(broker: RunningBroker, password: str) -> None:
    device = broker.new_device()
    with pytest.raises(Refused):
        Client(broker, device, password=password).wait_connected()
    with Client(broker, device):
        pass


def test_an_unknown_account_is_refused(broker: RunningBroker) -> None:
    with pytest.raises(Refused):
        Client(broker, "nobody", password="anything").wait_connected()


def test_nobody_connects_without_an_account(broker: RunningBroker) -> None:
    with pytest.raises(Refused):
        Client(broker, "", client_id="anonymous").wait_connected()


def test_a_new_account_counts_at_once_and_a_removed_one_no_more(broker: RunningBroker) -> None:
    staying = broker.new_device()
    with Client(broker, staying) as other:
        device = broker.new_device()
        client = Client(broker, device).wait_connected()
        password = broker.passwords.pop(device)
        broker.apply_accounts()
        assert client.ended.wait(10), "a removed account kept its connection"
        client.close()
        with pytest.raises(Refused):
            Client(broker, device, password=password).wait_connected()
        assert not other.ended.is_set()


def test_a_device_talks_to_the_hub_and_the_hub_to_it(broker: RunningBroker) -> None:
    device = broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, device) as client:
        assert hub.subscribe("muster/v1/d/+/up/+")
        assert client.subscribe(device_subscription(device))
        assert client.subscribe(blob_subscription(BLOB))
        client.publish(up(device, Up.HELLO), b"hello")
        assert hub.receive() == Message(up(device, Up.HELLO), b"hello")
        hub.publish(down(device, Down.ACK), b"ack")
        assert client.receive() == Message(down(device, Down.ACK), b"ack")
        hub.publish(chunk(BLOB, 0), b"chunk")
        assert client.receive() == Message(chunk(BLOB, 0), b"chunk")


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/#",
        "muster/#",
        "muster/v1/#",
        "muster/v1/d/#",
        "muster/v1/d/+/down/#",
        "muster/v1/d/+/down/+",
        "muster/v1/d/+/up/#",
        "muster/v1/+/+/down/assignment",
        "muster/v1/d/VICTIM/down/#",
        "muster/v1/d/VICTIM/down/assignment",
        "muster/v1/d/VICTIM/up/#",
        "$share/group/muster/v1/d/VICTIM/down/#",
    ],
)
def test_no_filter_lets_a_device_hear_what_is_meant_for_another(
    broker: RunningBroker, topic_filter: str
) -> None:
    victim, device = broker.new_device(), broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, victim) as target, Client(broker, device) as spy:
        assert target.subscribe(device_subscription(victim))
        spy.subscribe(
            topic_filter.replace("VICTIM", victim)
        )  # whether refused or silent is the broker's choice
        hub.publish(down(victim, Down.ASSIGNMENT), b"secret")
        target.publish(up(victim, Up.RECORD), b"secret")
        assert target.receive().payload == b"secret"
        assert spy.receives_nothing()
        assert not spy.ended.is_set()


def test_no_filter_lets_a_device_watch_the_broker(broker: RunningBroker) -> None:
    with Client(broker, broker.new_device()) as spy:
        spy.subscribe("$SYS/#")
        assert spy.receives_nothing()


@pytest.mark.parametrize(
    "topic",
    [
        "muster/v1/d/VICTIM/up/record",
        "muster/v1/d/VICTIM/down/assignment",
        "muster/v1/d/DEVICE/down/assignment",
        f"muster/v1/blobs/{BLOB}/0",
        "muster/v1/other",
        "other",
    ],
)
def test_a_device_cannot_publish_where_it_must_not(broker: RunningBroker, topic: str) -> None:
    victim, device = broker.new_device(), broker.new_device()
    with (
        Client(broker, HUB_ACCOUNT) as hub,
        Client(broker, victim) as target,
        Client(broker, device) as client,
    ):
        assert hub.subscribe("muster/#")
        assert hub.subscribe("other")
        assert target.subscribe(device_subscription(victim))
        assert target.subscribe(blob_subscription(BLOB))
        client.publish(topic.replace("VICTIM", victim).replace("DEVICE", device), b"forged", wait=False)
        hub.publish(down(victim, Down.ACK), b"marker")
        assert target.receive().payload == b"marker"
        assert hub.receive().payload == b"marker"
        assert target.receives_nothing()
        assert hub.receives_nothing()


def test_a_last_will_needs_the_same_permission(broker: RunningBroker) -> None:
    victim, device = broker.new_device(), broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, victim) as target:
        assert hub.subscribe("muster/v1/d/+/up/+")
        assert target.subscribe(device_subscription(victim))
        for topic in (up(victim, Up.PRESENCE), down(victim, Down.ASSIGNMENT)):
            client = Client(broker, device, will=Message(topic, b"forged"))
            with suppress(Refused):  # as good: the broker did not take the will at all
                client.wait_connected().break_off()
        target.publish(up(victim, Up.STATE), b"marker")
        assert hub.receive().payload == b"marker"
        assert hub.receives_nothing()
        assert target.receives_nothing()


def test_a_last_will_tells_that_a_device_vanished(broker: RunningBroker) -> None:
    device = broker.new_device()
    will = Message(up(device, Up.PRESENCE), b"offline")
    with Client(broker, HUB_ACCOUNT) as hub:
        assert hub.subscribe("muster/v1/d/+/up/+")
        Client(broker, device, will=will).wait_connected().break_off()
        assert hub.receive() == will
        Client(broker, device, will=will).wait_connected().close()
        assert hub.receives_nothing()


@pytest.mark.parametrize("clean", [True, False])
def test_no_account_can_take_the_session_of_another(broker: RunningBroker, clean: bool) -> None:
    victim, device = broker.new_device(), broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub, Client(broker, victim, clean=False) as target:
        assert target.subscribe(device_subscription(victim))
        thieves = [
            Client(
                broker, device, client_id=victim, clean=clean
            ),  # an account of its own, another's client id
            Client(broker, victim, password="guessed", clean=clean),
            Client(broker, "", client_id=victim, clean=clean),
        ]
        for thief in thieves:
            with suppress(Refused):  # Mosquitto lets the first in, under its own client id
                thief.wait_connected()
        hub.publish(down(victim, Down.ASSIGNMENT), b"for the victim")
        assert target.receive().payload == b"for the victim"
        assert not target.ended.is_set()
        for thief in thieves:
            assert thief.messages.empty()
            thief.close()


def test_nothing_is_retained(broker: RunningBroker) -> None:
    device, other = broker.new_device(), broker.new_device()
    with Client(broker, HUB_ACCOUNT) as hub:
        assert hub.subscribe("muster/v1/d/+/up/+")
        retaining = Client(broker, device).wait_connected()
        retaining.publish(up(device, Up.RECORD), b"kept", retain=True, wait=False)
        with Client(broker, other) as later:
            later.publish(up(other, Up.STATE), b"marker")
            assert later.subscribe(device_subscription(other))
            assert later.receives_nothing()
        retaining.close()
    with Client(broker, HUB_ACCOUNT) as restarted:
        assert restarted.subscribe("muster/v1/d/+/up/+")
        assert restarted.receives_nothing()
