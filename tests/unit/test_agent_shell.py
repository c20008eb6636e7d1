"""The shell around the update machine: what waits while states cannot be written, what stays in memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.backoff import Backoff
from agent.blobs import BlobStore
from agent.capabilities import measure
from agent.delivery import Delivery
from agent.hosting.host import Host
from agent.life import shell
from agent.life.choice import Chooser
from agent.life.gate import Gate
from agent.life.measurements import Measurements
from agent.life.models import Models
from agent.life.opening import Opener, needed_bytes
from agent.life.shell import Surroundings
from agent.life.slots import Slots
from agent.life.store import LifeStore, Stored
from agent.life.terms import Life, Phase, Release
from agent.life.work import Workshop
from agent.mqtt import Link
from agent.settings import Settings
from agent.telemetry.outbox import Outbox
from agent.trust.fetcher import FileClient
from agent.trust.image_repository import ImageRepository
from fleet.protocol.assignment import Assignment, ModelOrder
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.enrolment import BrokerAccess
from fleet.protocol.errors import MusterError, NoSpace
from fleet.protocol.records import DeploymentReport
from tests.support.agent_bundles import VARIANT, build
from tests.support.agent_repository import Repository
from tests.support.small_disk import SmallDisk, on_small_disk, small_disk
from tests.support.waiting import eventually_async

RETRY_S = 0.1


class OfflineDevice:
    """The models of a device that never reaches its broker; the disk of their states is a small one."""

    def __init__(self, folder: Path, life: Path) -> None:
        settings = Settings()
        access = BrokerAccess("127.0.0.1", 1, "dev-1", "password")
        self.incidents: list[MusterError] = []
        link = Link(
            "dev-1",
            access,
            will=("dev-1", b""),
            handler=lambda _topic, _payload, done: done(),
            on_connected=_nothing,
            on_error=self.incidents.append,
            backoff=_backoff(),
        )

        async def wait_connected() -> None:
            self._asked = True
            await link.wait_connected()

        self._asked = False
        files = FileClient(
            lambda data: link.publish("dev-1", data),
            wait_connected,
            timeout_s=1,
            attempts=1,
            backoff=_backoff,
        )
        repository = ImageRepository(folder / "trust", Repository().root, files)
        blobs = BlobStore(folder / "blobs")
        slots, host = Slots(folder / "models", blobs), Host()
        delivery = Delivery("dev-1", link, blobs, settings, on_incident=self._tell, backoff=_backoff)
        self.outbox = Outbox(folder / "outbox.sqlite", 10**6)
        self.opener = opener = Opener(settings, self._tell)
        gate = Gate(folder, settings, lambda: None)
        gate.hear_hub(held=False)
        workshop = Workshop(
            repository,
            delivery,
            slots,
            host,
            Chooser(
                slots,
                Measurements(folder / "variants.json", settings),
                self.outbox,
                opener.open,
                capabilities=lambda: measure(folder),
                timeout_s=settings.inference_timeout_s,
                on_incident=self._tell,
            ),
            opener=opener,
            gate=gate,
            settings=settings,
            capabilities=lambda: measure(folder),
            on_incident=self._tell,
            keep=self.outbox.put,
        )
        around = Surroundings(LifeStore(life), slots, host, self.outbox, workshop, lambda: None, self._tell)
        self.models = Models(around, blobs)
        self.models.start()

    async def close(self) -> None:
        """End it, when the repository's thread waits for the event loop and not on its way to it."""
        if self.deployment() is not None:
            await eventually_async(lambda: self._asked)
        await self.models.close()
        self.outbox.close()

    def _tell(self, error: MusterError) -> None:
        self.incidents.append(error)

    def order(self, *orders: tuple[str, int]) -> None:
        """Apply an assignment that has one model, or none."""
        models = tuple(
            ModelOrder("digits", version, bytes([version]) * 32, "onnx-fp32", deployment_id)
            for deployment_id, version in orders
        )
        self.models.apply(Assignment("dev-1", 1, 0, 1, models))

    def answering(self) -> int | None:
        """Return the version that answers."""
        return next((state.version for state in self.models.states()), None)

    def deployment(self) -> str | None:
        """Return the deployment that the device works on."""
        return next((state.deployment_id for state in self.models.states()), None)

    def reports(self) -> list[tuple[str, S]]:
        """Return what was told of deployments."""
        bodies = [self.outbox.record(entry).body for entry in self.outbox.take(100, beside=set())]
        return [(body.deployment_id, body.state) for body in bodies if isinstance(body, DeploymentReport)]


async def _nothing() -> None:
    pass


def _backoff() -> Backoff:
    return Backoff(0.1, 0.1)


def play(tmp_path: Path, story: Callable[[OfflineDevice, SmallDisk], Awaitable[None]]) -> None:
    """Let something happen to a device."""

    async def run() -> None:
        with small_disk(tmp_path / "life", 2**17) as disk:
            device = OfflineDevice(tmp_path / "state", disk.folder)
            try:
                await story(device, disk)
            finally:
                await device.close()

    asyncio.run(run())


async def never(condition: Callable[[], bool]) -> None:
    """Check that a condition does not come about while everything that waits is tried several times."""
    with pytest.raises(AssertionError):
        await eventually_async(lambda: condition() or None, timeout_s=5 * RETRY_S)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "RETRY_S", RETRY_S)


@on_small_disk
def test_an_order_that_was_superseded_while_it_waited_is_never_carried_out(tmp_path: Path) -> None:
    async def story(device: OfflineDevice, disk: SmallDisk) -> None:
        disk.fill()
        device.order(("d-6", 2))
        assert isinstance(device.incidents[0], NoSpace)
        disk.free()
        device.order(("d-7", 1))
        assert device.deployment() == "d-7"
        await never(lambda: device.deployment() != "d-7")
        assert device.reports() == [("d-7", S.DOWNLOADING)]

    play(tmp_path, story)


@on_small_disk
def test_a_removal_that_was_superseded_while_it_waited_removes_nothing(tmp_path: Path) -> None:
    async def story(device: OfflineDevice, disk: SmallDisk) -> None:
        device.order(("d-6", 1))
        disk.fill()
        device.order()
        disk.free()
        device.order(("d-7", 1))
        await never(lambda: device.deployment() != "d-7")
        assert ("d-6", S.REMOVED) not in device.reports()

    play(tmp_path, story)


@on_small_disk
def test_of_orders_that_wait_the_latest_is_carried_out_when_there_is_space(tmp_path: Path) -> None:
    async def story(device: OfflineDevice, disk: SmallDisk) -> None:
        disk.fill()
        for number in (6, 7, 8):
            device.order((f"d-{number}", number))
        assert device.deployment() is None
        disk.free()
        await eventually_async(lambda: device.deployment() == "d-8")
        assert device.reports() == [("d-8", S.DOWNLOADING)]

    play(tmp_path, story)


@on_small_disk
def test_an_order_taken_back_while_it_waited_leaves_nothing(tmp_path: Path) -> None:
    async def story(device: OfflineDevice, disk: SmallDisk) -> None:
        disk.fill()
        device.order(("d-6", 1))
        device.order()
        disk.free()
        await never(lambda: bool(device.models.states()))
        assert device.reports() == []

    play(tmp_path, story)


def test_a_candidate_whose_order_is_superseded_in_the_shadow_leaves_the_memory(tmp_path: Path) -> None:
    folder, life = tmp_path / "state", tmp_path / "life"
    blobs = BlobStore(folder / "blobs")
    slots = Slots(folder / "models", blobs)
    releases = []
    for bundle in (build(1), build(2)):
        release = Release(bundle.manifest.version, bundle.sha256, VARIANT)
        slots.stage("digits", release, bundle.data)
        for file in bundle.files:
            blobs.path(file.sha256).write_bytes(bundle.blobs[file.sha256])
        slots.install("digits", release)
        releases.append(release)
    active, candidate = releases
    shadowed = Life(Phase.SHADOW, "d-2", active, None, candidate, ordered=candidate, shadow_s=3600)
    LifeStore(life).save("digits", Stored(shadowed))

    async def run() -> None:
        device = OfflineDevice(folder, life)
        try:
            await eventually_async(lambda: device.answering() == 1)
            alone_bytes = needed_bytes(build(1).variant.requirement)
            await eventually_async(lambda: device.opener.held_bytes > alone_bytes)
            device.order(("d-3", 3))
            await eventually_async(lambda: gc.collect() >= 0 and device.opener.held_bytes == alone_bytes)
            assert device.answering() == 1
        finally:
            await device.close()

    asyncio.run(run())
