"""Agents that start on a disk without a single free byte: they answer, and lose nothing that was written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.life.shell import RETRY_S
from agent.telemetry.outbox import Outbox
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.errors import Cause, StorageError
from fleet.protocol.records import Incident
from tests.support.agent_broker import OpenBroker
from tests.support.agent_bundles import build
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import open_broker_fixture  # noqa: F401 - pytest finds fixtures by name
from tests.support.agent_peer import Peer
from tests.support.small_disk import on_small_disk, small_disk
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

pytestmark = pytest.mark.thorough

ONE, TWO = build(1), build(2)
DISK_BYTES = 3 * 2**20


def records(state: Path) -> set[int]:
    """Return the numbers of the records in an outbox."""
    with closing(sqlite3.connect(state / "outbox.sqlite")) as database:
        return {number for (number,) in database.execute("SELECT number FROM record")}


def set_trial(device: Device, trial_s: float) -> None:
    """Let the trials of a device that is not running last so long from its next start on."""
    settings = device.state / "agent.toml"
    lines = settings.read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("trial_s =")]
    settings.write_text("\n".join([f"trial_s = {trial_s}", *kept, ""]), "utf-8")


@on_small_disk
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_an_agent_on_a_full_disk_answers_and_keeps_its_records(
    open_broker: OpenBroker, tmp_path: Path, end: str
) -> None:
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        peer = Peer(open_broker)
        device = Device(peer, disk.folder, "dev-full")
        try:
            peer.release(ONE)
            device.start()
            peer.assign(device.id, (ONE, "d-1"))
            peer.wait_report("d-1", S.SUCCEEDED)
            open_broker.stop()
            assert device.infer(SAMPLE).status == 200
            eventually(lambda: records(device.state), "a window waits for the broker")
            if end == "killed":
                device.kill()
            else:
                device.stop()
            kept = {path.name: path.read_bytes() for path in device.state.glob("outbox.sqlite*")}
            disk.fill()

            device.start()
            device.wait_version(1)
            device.kill()
            for name, data in kept.items():
                if not name.endswith("-shm"):  # an index that SQLite builds anew
                    assert (device.state / name).read_bytes() == data
            assert not list(device.state.glob("*.damaged*"))

            device.start()
            device.wait_version(1)
            disk.free()
            open_broker.start()
            peer.release(TWO)
            peer.assign(device.id, (TWO, "d-2"))
            peer.wait_report("d-2", S.SUCCEEDED)
            eventually(lambda: not records(device.state), "every record was taken by the hub")
            assert device.is_running()
        finally:
            device.close()
            peer.close()


@on_small_disk
@pytest.mark.parametrize("phase", ["TRIAL", "TESTING"] if ALL else ["TRIAL"])
def test_a_trial_that_cannot_go_on_leaves_the_committed_version_answering(
    open_broker: OpenBroker, tmp_path: Path, phase: str
) -> None:
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        peer = Peer(open_broker)
        device = Device(peer, disk.folder, "dev-trial")
        life = device.state / "life" / "digits.state"
        try:
            peer.release(ONE)
            peer.release(TWO)
            device.start()
            peer.assign(device.id, (ONE, "d-1"))
            peer.wait_report("d-1", S.SUCCEEDED)
            device.stop()
            set_trial(device, 60.0)
            device.start()
            peer.assign(device.id, (TWO, "d-2"))
            peer.wait_report("d-2", S.TRIAL)
            device.kill()
            life.write_text(life.read_text("utf-8").replace('"TRIAL"', f'"{phase}"'), "utf-8")
            disk.fill()

            device.start()
            device.wait_version(1)  # the crash cannot be counted, so the candidate is not loaded
            disk.free()
            eventually(
                lambda: device.answering_version() == "2",
                "the trial goes on when there is space",
                timeout_s=4 * RETRY_S,
            )
        finally:
            device.close()
            peer.close()


@on_small_disk
def test_an_outbox_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    incident = Incident(1.0, Cause("no_space", "Full."))
    with small_disk(tmp_path / "disk", 2**20) as disk:
        path = disk.folder / "outbox.sqlite"
        before = Outbox(path, 10**6)
        before.put(incident)
        before.close()
        whole = path.read_bytes()
        disk.fill()

        outbox = Outbox(path, 10**6)
        for refused in (
            lambda: len(outbox),
            lambda: outbox.put(incident),
            lambda: outbox.take(1, beside=set()),
            lambda: outbox.acknowledge(before.stream, (1,)),
        ):
            with pytest.raises(StorageError):
                refused()
        assert path.read_bytes() == whole
        assert outbox.damage is None

        disk.free()
        (entry,) = outbox.take(1, beside=set())
        assert outbox.record(entry).body == incident
        assert (outbox.stream, entry.stream) == (before.stream, before.stream)
        outbox.close()
