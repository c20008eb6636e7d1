"""The hub's MQTT adapter on real brokers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fleet.protocol.errors import BrokerUnavailable
from fleet.protocol.messages import MAX_MESSAGE_SIZE_BYTES, MAX_PACKET_SIZE_BYTES
from fleet.protocol.topics import HUB_ACCOUNT, Down, Up, device_subscription, down, up
from hub import mqtt_packets as packets
from hub.broker.kinds import KINDS, Kind
from hub.broker.process import start_broker
from hub.mqtt import WAITING_BYTES, WAITING_MESSAGES, HubMqtt
from hub.mqtt_packets import PacketReader, Published
from tests.support.brokers import HOST, RunningBroker
from tests.support.handlers import one_by_one
from tests.support.mqtt_client import Client, Message
from tests.support.waiting import eventually_async

TIMEOUT_S = 20.0
Handler = Callable[[str, bytes], Awaitable[None]]


@asynccontextmanager
async def connected_hub(
    broker: RunningBroker, handler: Handler, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[HubMqtt]:
    hub = HubMqtt(
        HOST,
        broker.port,
        HUB_ACCOUNT,
        broker.passwords[HUB_ACCOUNT],
        one_by_one(handler),
        publish_timeout_s=timeout_s,
    )
    running = asyncio.create_task(hub.run())
    try:
        await hub.wait_connected(TIMEOUT_S)
        yield hub
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def test_messages_come_and_go(broker: RunningBroker) -> None:
    device = broker.new_device()
    received: asyncio.Queue[Message] = asyncio.Queue()

    async def keep(topic: str, payload: bytes) -> None:
        received.put_nowait(Message(topic, payload))

    async def story() -> None:
        async with connected_hub(broker, keep) as hub:
            assert hub.connected
            client = await asyncio.to_thread(Client(broker, device).wait_connected)
            assert await asyncio.to_thread(client.subscribe, device_subscription(device))
            await asyncio.to_thread(client.publish, up(device, Up.HELLO), b"hello")
            assert await asyncio.wait_for(received.get(), TIMEOUT_S) == Message(
                up(device, Up.HELLO), b"hello"
            )
            large = bytes(MAX_MESSAGE_SIZE_BYTES)
            await hub.publish(down(device, Down.FILE), large)
            assert (await asyncio.to_thread(client.receive)).payload == large
            await asyncio.to_thread(client.close)
        assert not hub.connected

    asyncio.run(story())


def test_a_handler_that_fails_does_not_stop_the_stream(broker: RunningBroker) -> None:
    device = broker.new_device()
    handled: asyncio.Queue[bytes] = asyncio.Queue()

    async def stumble(_: str, payload: bytes) -> None:
        if payload == b"bad":
            raise RuntimeError("a bug in a handler")
        handled.put_nowait(payload)

    async def story() -> None:
        async with connected_hub(broker, stumble):
            client = await asyncio.to_thread(Client(broker, device).wait_connected)
            for payload in (b"bad", b"good", b"bad", b"better"):
                await asyncio.to_thread(client.publish, up(device, Up.RECORD), payload, wait=False)
            seen: list[bytes] = []
            while b"better" not in seen:  # a batch that failed is handled again, so good ones can come twice
                seen.append(await asyncio.wait_for(handled.get(), TIMEOUT_S))
            assert b"good" in seen
            await asyncio.to_thread(client.close)

    asyncio.run(story())


def test_a_handler_can_answer_while_others_publish(broker: RunningBroker) -> None:
    device = broker.new_device()
    hubs: list[HubMqtt] = []

    async def answer(_: str, payload: bytes) -> None:
        await hubs[0].publish(down(device, Down.ACK), payload)

    async def story() -> None:
        async with connected_hub(broker, answer) as hub:
            hubs.append(hub)
            client = await asyncio.to_thread(Client(broker, device).wait_connected)
            assert await asyncio.to_thread(client.subscribe, device_subscription(device))
            others = [hub.publish(down(device, Down.FILE), bytes(64 * 1024)) for _ in range(200)]
            for number in range(20):
                await asyncio.to_thread(client.publish, up(device, Up.RECORD), b"%d" % number, wait=False)
            await asyncio.gather(*others)
            received = [await asyncio.to_thread(client.receive) for _ in range(220)]
            acks = {message.payload for message in received if message.topic == down(device, Down.ACK)}
            assert acks == {b"%d" % number for number in range(20)}
            await asyncio.to_thread(client.close)

    asyncio.run(story())


def test_a_wrong_password_says_so(broker: RunningBroker) -> None:
    async def story() -> None:
        hub = HubMqtt(HOST, broker.port, HUB_ACCOUNT, "wrong", _ignore, publish_timeout_s=0.5)
        running = asyncio.create_task(hub.run())
        async with asyncio.timeout(TIMEOUT_S):
            while not re.search("authori[sz]ed", await refusal(hub)):
                pass
        with pytest.raises(BrokerUnavailable):
            await hub.publish(down("cam-1", Down.ACK), b"")
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(story())


async def refusal(hub: HubMqtt) -> str:
    """Return why a hub is not connected after a while."""
    with pytest.raises(BrokerUnavailable) as refused:
        await hub.wait_connected(0.3)
    return str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_reconnects_when_the_broker_returns(kind: Kind, tmp_path: Path) -> None:
    async def story(broker: RunningBroker) -> None:
        received: asyncio.Queue[bytes] = asyncio.Queue()

        async def keep(_: str, payload: bytes) -> None:
            received.put_nowait(payload)

        device = broker.new_device()
        accounts = broker.hashes()
        async with connected_hub(broker, keep) as hub:
            await asyncio.to_thread(broker.stop)
            await eventually_async(lambda: not hub.connected, "the hub saw that its broker is gone")
            sending = asyncio.create_task(
                hub.publish(down(device, Down.ACK), b"sent while the broker was away")
            )
            returned = await start_broker(kind, tmp_path, HOST, broker.port, accounts)
            try:
                await hub.wait_connected(TIMEOUT_S)
                await sending
                client = await asyncio.to_thread(Client(broker, device).wait_connected)
                await asyncio.to_thread(client.publish, up(device, Up.STATE), b"back")
                assert await asyncio.wait_for(received.get(), TIMEOUT_S) == b"back"
                await asyncio.to_thread(client.close)
            finally:
                await returned.stop()

    asyncio.run(story(RunningBroker(kind, tmp_path)))


def test_without_a_broker_publishing_fails_in_time() -> None:
    async def story() -> None:
        hub = HubMqtt(HOST, 1, HUB_ACCOUNT, "any", _ignore, publish_timeout_s=0.3)
        running = asyncio.create_task(hub.run())
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
            await hub.publish(down("cam-1", Down.ACK), b"")
        assert not hub.connected
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(story())


def test_a_broker_that_goes_silent_is_noticed() -> None:
    """A peer that accepts and never answers stands for a machine that froze."""

    async def story() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            writer.write(b"\x20\x02\x00\x00\x90\x03\x00\x01\x01")  # CONNACK and SUBACK, then nothing more
            with suppress(ConnectionError):
                while await reader.read(4096):
                    pass
            writer.close()

        server = await asyncio.start_server(silent, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        hub = HubMqtt(HOST, port, HUB_ACCOUNT, "any", _ignore, publish_timeout_s=0.5)
        running = asyncio.create_task(hub.run())
        await hub.wait_connected(TIMEOUT_S)
        with pytest.raises(BrokerUnavailable, match="acknowledge"):
            await hub.publish(down("cam-1", Down.ACK), b"lost")
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        server.close()

    asyncio.run(story())


LONG_TOPIC = "muster/v1/d/cam-1/up/" + 60_000 * "x"


@pytest.mark.parametrize(
    ("topic", "most"),
    [("muster/v1/d/cam-1/up/state", WAITING_MESSAGES), (LONG_TOPIC, WAITING_BYTES // len(LONG_TOPIC) + 1)],
    ids=["many", "long topics"],
)
def test_what_waits_is_bounded_while_a_handler_hangs_and_nothing_is_lost(topic: str, most: int) -> None:
    """A peer that sends without end stands for a fleet that comes back at once."""
    number = 2 * most
    message = packets.publish(topic, b"", 7)

    async def story() -> None:
        acknowledged, goes_on, handled = 0, asyncio.Event(), 0

        async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal acknowledged
            await reader.readexactly(1)
            writer.write(b"\x20\x02\x00\x00\x90\x03\x00\x01\x01" + message * number)
            packet_reader = PacketReader(MAX_PACKET_SIZE_BYTES)
            while data := await reader.read(1 << 16):
                if acknowledged or data.startswith(b"\x40"):
                    acknowledged += sum(a.kind == packets.PUBACK for a in packet_reader.feed(data)[1])
            writer.close()

        async def hang(published: Sequence[Published]) -> None:
            nonlocal handled
            await goes_on.wait()
            handled += len(published)

        server = await asyncio.start_server(talkative, HOST, 0)
        hub = HubMqtt(HOST, server.sockets[0].getsockname()[1], HUB_ACCOUNT, "any", hang)
        running = asyncio.create_task(hub.run())
        await hub.wait_connected(TIMEOUT_S)
        await eventually_async(lambda: hub.waiting >= most, "as much waits as may")
        largest = hub.waiting
        assert largest < most + (1 << 18) // len(message) + 2  # what one read may bring
        goes_on.set()
        await eventually_async(lambda: handled == number, "everything is handled")
        await eventually_async(lambda: acknowledged == number, "everything is acknowledged")
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        server.close()

    asyncio.run(story())


async def _ignore(_: Sequence[Published]) -> None:
    pass
