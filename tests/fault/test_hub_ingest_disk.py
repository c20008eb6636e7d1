"""The hub's disk is full: nothing is acknowledged, memory stays bounded, and afterwards nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from hub.mqtt import WAITING_MESSAGES
from tests.support.brokers import RunningBroker, running_broker
from tests.support.ingest import Intaking, running_ingest
from tests.support.small_disk import on_small_disk, small_disk
from tests.support.stores import window
from tests.support.waiting import eventually

RECORDS = 2000


@on_small_disk
def test_a_full_disk_stops_the_hub_until_there_is_space(tmp_path: Path) -> None:
    with (
        running_broker("mosquitto", tmp_path / "broker") as broker,
        small_disk(tmp_path / "disk", 16 * 1024**2) as disk,
    ):

        def story(hub: Intaking) -> None:
            device = hub.device()
            device.report([0], window())
            assert device.acknowledged(1) == {0}
            disk.fill()
            device.report(range(1, RECORDS), window())
            eventually(lambda: hub.ingest.failed_writes > 0, "a batch could not be stored")
            batches = hub.ingest.batches
            assert not device.mqtt.receive(timeout_s=0.3)
            assert (hub.ingest.batches, hub.kept(device)) == (batches, 1)
            assert hub.mqtt.waiting <= WAITING_MESSAGES
            disk.free()
            assert device.acknowledged(RECORDS - 1) == set(range(1, RECORDS))
            assert hub.kept(device) == RECORDS
            device.mqtt.close()

        asyncio.run(_beside(broker, disk.folder, story))


async def _beside(broker: RunningBroker, folder: Path, story: Callable[[Intaking], None]) -> None:
    async with running_ingest(broker, folder) as hub:
        await asyncio.to_thread(story, hub)
