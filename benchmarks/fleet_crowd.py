"""All simulated devices of one process: they connect, live, and are counted in the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from benchmarks.fleet_device import Device
from benchmarks.fleet_habits import Fate, Fleet, Habits
from benchmarks.fleet_hub import OLD, capabilities
from benchmarks.fleet_windows import windows
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.manifest import Manifest, encode_manifest, manifest_sha256

FATES = {Fate.FAILS: 0.01, Fate.AWAY: 0.02, Fate.RECONNECTS: 0.02}
"""Shares of all devices."""
CONNECTING_AT_ONCE = 200
TICK_S, LOOK_S = 0.25, 0.02
DIFFERENT_WINDOWS = 101
CONNECT_LIMIT_S = 600.0


class Told(NamedTuple):
    """What devices know that they told: the hub must know the same.

    Attributes:
        records: Last number by device and stream; every one up to it was acknowledged.
        predictions: Answers by device and version.
        waiting: Records that were never acknowledged.
    """

    records: dict[tuple[str, str], int]
    predictions: dict[tuple[str, int], int]
    waiting: int


class Crowd:
    """The devices.

    Args:
        port: The broker's.
        passwords: By device.
        key: The director's raw public key.
        manifests: By version.
        habits: How devices behave.
        seed: Fixes what befalls whom.
    """

    def __init__(
        self,
        port: int,
        passwords: Mapping[str, str],
        key: bytes,
        manifests: Mapping[int, Manifest],
        *,
        habits: Habits,
        seed: int,
    ) -> None:
        self._port = port
        self._connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        digests = {v: manifest_sha256(encode_manifest(manifest)) for v, manifest in manifests.items()}
        pools = {v: windows(DIFFERENT_WINDOWS, version=v, digest=digest) for v, digest in digests.items()}
        self.fleet = Fleet(key, pools, habits, self._reconnect)
        self.faults: list[str] = []
        rng = random.Random(seed)  # noqa: S311 - a simulation
        old = manifests[OLD]
        held = frozenset(file.sha256 for file in old.files(old.variants[0]))
        fates, shares = [*FATES, Fate.NONE], [*FATES.values(), 1 - sum(FATES.values())]
        self.devices = [
            Device(
                self.fleet,
                name,
                password,
                capabilities(number),
                running=(OLD, digests[OLD]),
                held=held,
                fate=rng.choices(fates, shares)[0],
                rng=random.Random(rng.getrandbits(64)),  # noqa: S311 - likewise
            )
            for number, (name, password) in enumerate(passwords.items())
        ]

    @property
    def connected(self) -> int:
        """How many devices are connected."""
        return sum(device.connected for device in self.devices)

    @property
    def waiting(self) -> int:
        """How many records were not acknowledged yet."""
        return sum(len(device.outbox) for device in self.devices)

    def outcomes(self) -> Counter[DeploymentState | None]:
        """Return how the devices' updates ended; None for those that have not."""
        return Counter(device.outcome for device in self.devices)

    async def connect_all(self) -> float:
        """Connect every device; return how long it took."""
        asyncio.get_running_loop().set_exception_handler(self._note)
        begun_s = time.perf_counter()
        for device in self.devices:
            self._reconnect(device, 0.0)
        async with asyncio.timeout(CONNECT_LIMIT_S):
            while self.connected < len(self.devices):  # noqa: ASYNC110 - devices do not know that they are counted
                await asyncio.sleep(LOOK_S)
        return time.perf_counter() - begun_s

    async def live(self) -> None:
        """Let devices do what is due, until cancelled."""
        while True:
            now_s = time.time()
            for device in self.devices:
                device.tick(now_s)
            await asyncio.sleep(TICK_S)

    async def settle(self, limit_s: float) -> Told:
        """Wait until every record is acknowledged, or for so long; nothing new is told meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.waiting:
                    for device in self.devices:
                        device.send_again()
                    await asyncio.sleep(TICK_S)
        return Told(
            {(device.id, device.stream): device.last_number for device in self.devices},
            {
                (device.id, version): number
                for device in self.devices
                for version, number in device.predictions.items()
            },
            self.waiting,
        )

    async def close(self) -> None:
        """End every connection."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        for device in self.devices:
            device.close()
        await asyncio.sleep(TICK_S)

    def _reconnect(self, device: Device, after_s: float) -> None:
        if self._closing:
            return
        task = asyncio.ensure_future(self._connect(device, after_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, device: Device, after_s: float) -> None:
        await asyncio.sleep(after_s)
        async with self._connecting:
            loop = asyncio.get_running_loop()
            try:
                await loop.create_connection(device.new_link, "127.0.0.1", self._port)
            except OSError:
                device.on_lost()

    def _note(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Keep what a device raised: the run has failed."""
        del loop
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")


def expected(devices: Sequence[Device]) -> Counter[DeploymentState]:
    """Return how updates should end, by what befalls the devices."""
    failing = sum(device.fate is Fate.FAILS for device in devices)
    return Counter({DeploymentState.ROLLED_BACK: failing, DeploymentState.SUCCEEDED: len(devices) - failing})
