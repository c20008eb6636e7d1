"""Batches from a real broker: poison among good ones, floods, giants, and what is sent twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fleet.flood import FloodLimits
from fleet.protocol import messages
from fleet.protocol.errors import NotFound
from fleet.protocol.messages import MAX_MESSAGE_SIZE_BYTES, Presence, StateReport
from fleet.protocol.records import Incident
from fleet.protocol.topics import Up
from tests.support.brokers import RunningBroker
from tests.support.ingest import GENEROUS, Intaking, running_ingest
from tests.support.raw_mqtt import Ended
from tests.support.stores import incident, window
from tests.support.waiting import eventually

STRICT = FloodLimits(rate=20.0, burst=100.0, quarantine_after_s=0.5, quarantine_s=300.0)
TOO_LARGE = {"embedded": ["message_too_large"], "mosquitto": []}
"""Mosquitto drops what is larger than a message may be, and keeps the connection."""


def run(
    broker: RunningBroker, folder: Path, story: Callable[[Intaking], None], limits: FloodLimits = GENEROUS
) -> None:
    """Run a story, which blocks, beside ingest."""

    async def told() -> None:
        async with running_ingest(broker, folder, limits) as intaking:
            await asyncio.to_thread(story, intaking)

    asyncio.run(told())


def test_poison_among_good_ones_is_set_aside_and_stops_nothing(broker: RunningBroker, tmp_path: Path) -> None:
    def story(hub: Intaking) -> None:
        device = hub.device()
        unknown = msgspec.structs.replace(window(), version=99)
        for number in range(100):
            device.report([number], window())
            device.say(Up.RECORD, b"\xc1")
            device.report([1000 + number], unknown)
            device.say(Up.STATE, b"poison")
        numbers = device.acknowledged(200)
        assert numbers == {*range(100), *range(1000, 1100)}
        letters = [letter for letter in hub.store.dead_letters(limit=1000) if letter.device_id == device.id]
        codes = Counter(letter.cause.code for letter in letters)
        assert set(codes) == {"invalid_message", "not_found"}
        assert codes["not_found"] >= 100
        assert hub.kept(device) == 100
        device.mqtt.close()

    run(broker, tmp_path, story)


def test_what_is_sent_twice_is_acknowledged_twice_and_kept_once(
    broker: RunningBroker, tmp_path: Path
) -> None:
    def story(hub: Intaking) -> None:
        device = hub.device()
        for _ in range(2):
            device.report(range(300), window())
            assert device.acknowledged(300) == set(range(300))
        assert hub.kept(device) == 300
        device.mqtt.close()

    run(broker, tmp_path, story)


def test_the_newest_of_what_a_device_says_of_itself_counts(broker: RunningBroker, tmp_path: Path) -> None:
    def story(hub: Intaking) -> None:
        device = hub.device()
        states = [messages.encode(StateReport(float(at_s), 0, ())) for at_s in range(1, 50)]
        device.say(Up.STATE, *states, b"poison")
        device.say(Up.PRESENCE, messages.encode(Presence(online=False)))
        device.report([1], incident())
        device.acknowledged(1)

        def said() -> tuple[bool, float | None]:
            row = hub.store.device(device.id)
            return row.online, row.reported.at_s if row.reported else None

        eventually(lambda: said() == (False, 49.0), "the newest state and presence are known")
        device.mqtt.close()

    run(broker, tmp_path, story)


def test_a_giant_is_refused_and_its_sender_is_heard_again(broker: RunningBroker, tmp_path: Path) -> None:
    def story(hub: Intaking) -> None:
        device = hub.device()
        device.say(Up.RECORD, bytes(MAX_MESSAGE_SIZE_BYTES + 1))
        device.report([1], window())
        device.acknowledged(1)
        letters = [letter for letter in hub.store.dead_letters() if letter.device_id == device.id]
        assert [letter.cause.code for letter in letters] == TOO_LARGE[hub.broker.kind]
        with pytest.raises(
            Ended
        ):  # more than the broker lets through: it hangs up, perhaps before it has all
            device.say(Up.RECORD, bytes(1_000_000))
            while True:
                assert device.mqtt.receive()
        other = hub.device()
        other.report([1], window())
        other.acknowledged(1)
        for each in (device, other):
            each.mqtt.close()

    run(broker, tmp_path, story)


def test_a_flood_delays_no_other_device_and_ends_in_quarantine(broker: RunningBroker, tmp_path: Path) -> None:
    def story(hub: Intaking) -> None:
        loud, quiet = hub.device(), hub.device()
        sent = 0
        while not hub.store.quarantines():
            loud.report(range(sent, sent + 100), window())
            sent += 100
            quiet.report([sent], incident())
            assert quiet.acknowledged(1) == {sent}  # within the time that a test may wait
        assert hub.kept(loud) <= 2 * STRICT.burst + STRICT.rate * 20.0
        assert hub.kept(loud) < sent
        [happened] = hub.store.timeline(loud.id)
        assert isinstance(happened.body, Incident)
        assert happened.body.cause.code == "quarantined"
        loud.say(Up.STATE, messages.encode(StateReport(77.0, 0, ())))
        eventually(lambda: hub.store.device(loud.id).reported is not None, "it is still seen")
        with pytest.raises(NotFound):
            hub.floods.lift(quiet.id, by="ops")
        hub.floods.lift(loud.id, by="ops")
        assert hub.store.actions(loud.id)[0].by == "ops"
        loud.report([10**6], window())
        while 10**6 not in loud.acknowledged(1):
            pass
        assert hub.floods.limited
        for each in (loud, quiet):
            each.mqtt.close()

    run(broker, tmp_path, story, STRICT)
