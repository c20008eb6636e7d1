"""A receiver in a process of its own, so that all its CPU time is of receiving; see `benchmarks.ingest`.

It prints ``ready`` when it is subscribed, and at the end one JSON line: how many messages it took, and the
CPU time from before the first to after the last.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ingest_load import DIGEST
from benchmarks.ingest_peers import PahoReceiver, PerMessage
from fleet.flood import FloodLimits
from fleet.protocol.errors import NotFound
from fleet.protocol.messages import FetchRequest, FileAnswer
from fleet.protocol.topics import HUB_ACCOUNT
from hub.floods import Floods
from hub.ingest import Ingest
from hub.mqtt import HubMqtt
from hub.mqtt_packets import Published
from hub.store.sqlite import SqliteStore

QUIET_S = 3.0
"""So long nothing more comes: old versions of Mosquitto lose some of what they were to deliver."""
NO_LIMIT = FloodLimits(rate=1e9, burst=1e9, quarantine_after_s=60.0, quarantine_s=60.0)


def main() -> None:
    """Receive as the command line says: by whom, port, folder, how many; the password comes on stdin."""
    by, port, folder, expected = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    password = sys.stdin.readline().strip()
    if by == "muster":
        asyncio.run(_muster(port, password, folder, expected))
    else:
        _paho(port, password, PerMessage(folder / "peer.db") if by == "pydantic" else None, expected)


async def _muster(port: int, password: str, folder: Path, expected: int) -> None:
    store = SqliteStore(folder / "hub.db")
    watch = _Watch(expected)

    async def take(messages: Sequence[Published]) -> None:
        await ingest.handle(messages)
        watch.took(len(messages))

    mqtt = HubMqtt("127.0.0.1", port, HUB_ACCOUNT, password, take)
    ingest = Ingest(
        store,
        Floods(store, NO_LIMIT),
        digest=lambda _, __: DIGEST,
        publish=mqtt.publish,
        send=mqtt.send,
        demand=lambda _, __, ___: None,
        answer=_nothing,
        on_behind=_ignore,
        take_sample=lambda _, __, ___: None,
        on_records=lambda: None,
        on_written=lambda _: None,
        dead_letters_kept=1000,
    )
    running = asyncio.create_task(mqtt.run())
    await mqtt.wait_connected(30.0)
    watch.ready()
    while not watch.over():  # noqa: ASYNC110 - that nothing comes any more is no event
        await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()
    watch.tell(ingest.batches)


def _paho(port: int, password: str, take: PerMessage | None, expected: int) -> None:
    watch = _Watch(expected)
    receiver = PahoReceiver(port, password, take)
    for _ in range(20):  # until it is subscribed
        receiver.serve()
    watch.ready()
    while not watch.over():
        before = receiver.received
        receiver.serve()
        watch.took(receiver.received - before)
    watch.tell(watch.taken)


class _Watch:
    """Counts messages and the CPU time that they took."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self.taken = 0
        self._begun_ns = self._spent_ns = 0
        self._heard_at_s = time.monotonic() + 60.0

    def ready(self) -> None:
        self._begun_ns = time.process_time_ns()
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    def took(self, number: int) -> None:
        if number:
            self.taken += number
            self._spent_ns = time.process_time_ns() - self._begun_ns
            self._heard_at_s = time.monotonic()

    def over(self) -> bool:
        return self.taken >= self._expected or time.monotonic() > self._heard_at_s + QUIET_S

    def tell(self, batches: int) -> None:
        result = {"taken": self.taken, "spent_ns": self._spent_ns, "batches": batches}
        sys.stdout.write(json.dumps(result) + "\n")


def _nothing(_: Sequence[FetchRequest]) -> Sequence[FileAnswer]:
    raise NotFound("There is no repository here.")


async def _ignore(_: Sequence[str]) -> None:
    pass


if __name__ == "__main__":
    main()
