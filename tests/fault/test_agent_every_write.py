"""A device is killed, or its disk fails, at every single change of storage that an update makes.

One device goes on from fault to fault: what one left behind is where the next one finds it. After each the
device answers with a version that it verified, the update it was in comes to its end, and no record is lost.
`make test-faults` tries every operation; `make test` one in so many.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.errors import NoSpace, StorageCorrupt, StorageError
from tests.support.agent_bundles import Bundle, build
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.faulty_device import FOR_EVER, FaultyDevice
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

pytestmark = pytest.mark.thorough

SHARDS = 4 if ALL else 1
STEP = SHARDS if ALL else 41
QUICK = {"trial_s": 0.05, "hello_interval_s": 0.3, "heartbeat_interval_s": 0.2}
STORAGE = {kind.code for kind in (NoSpace, StorageError, StorageCorrupt)}
_numbers = count(1)

every_operation = pytest.mark.timeout(600)


@pytest.fixture(name="device")
def device_fixture(peer: Peer, tmp_path: Path) -> Iterator[FaultyDevice]:
    """A device that answers with version 1."""
    device = FaultyDevice(peer, tmp_path, f"dev-write-{next(_numbers)}", **QUICK)
    one = build(1)
    peer.release(one)
    device.start()
    peer.assign(device.id, (one, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    yield device
    device.close()


def order(peer: Peer, device: FaultyDevice, version: int) -> tuple[str, Bundle]:
    """Order a version that the device has never seen; return the deployment's id."""
    bundle, deployment_id = build(version), f"d-{version}"
    peer.release(bundle)
    peer.assign(device.id, (bundle, deployment_id))
    return deployment_id, bundle


def has_ended(peer: Peer, deployment_id: str) -> bool:
    """Tell whether a deployment's end was told."""
    return any(report.state.is_terminal for report in peer.reports(deployment_id))


def no_record_is_lost(peer: Peer, device: FaultyDevice) -> None:
    """Check that every record that a device ever numbered has come."""
    peer.wait_settled()
    assert device.is_running()
    numbers = [record.number for record in peer.records]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


@every_operation
@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_process_that_is_killed_at_any_write_goes_on(peer: Peer, device: FaultyDevice, shard: int) -> None:
    for version in count(2):
        at = shard + 1 + STEP * (version - 2)
        device.plan("kill", at)
        deployment_id, _ = order(peer, device, version)
        eventually(partial(killed_or_ended, peer, device, deployment_id))
        device.plan("none")  # else what comes after the update would meet it: acknowledgements are written
        eventually(partial(answers_or_died, device), f"it answers, or is killed at operation {at}")
        if not device.was_killed():
            break
        device.start()
        eventually(partial(answers_or_died, device), f"it answers; it was killed at operation {at} before")
        assert device.is_running()
        assert device.answering_version() in {str(version - 1), str(version)}
        peer.wait_report(deployment_id, S.SUCCEEDED)
        device.wait_version(version)
    assert version > 4, "the update is of many operations"
    no_record_is_lost(peer, device)


@every_operation
@pytest.mark.parametrize(
    ("fault", "lasting"),
    [("ENOSPC", True), ("EIO", False), *([("ENOSPC", False), ("EIO", True)] if ALL else [])],
    ids=lambda value: value if isinstance(value, str) else "lasting" if value else "once",
)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_disk_that_fails_at_any_write_is_survived(
    peer: Peer, device: FaultyDevice, fault: str, lasting: bool, shard: int
) -> None:
    """A failing operation, or every one from there on until the disk is well again."""
    for version in count(2):
        first = shard + 1 + STEP * (version - 2)
        device.plan(fault, first, FOR_EVER if lasting else first + 1)
        deployment_id, bundle = order(peer, device, version)
        eventually(partial(failed_or_ended, peer, device, deployment_id, first + (3 if lasting else 0)))
        failed = has_failed(device, first)
        assert device.answering_version() in {str(version - 1), str(version)}
        device.plan("none")
        end = peer.wait_end(deployment_id)
        if end.state is not S.SUCCEEDED:
            assert (end.state, end.cause and end.cause.code in STORAGE) == (S.FAILED, True)
            peer.assign(device.id, (bundle, f"{deployment_id}-again"))
            peer.wait_report(f"{deployment_id}-again", S.SUCCEEDED)
        device.wait_version(version)
        assert device.is_running()
        if not failed:
            break
    assert version > 4, "the update is of many operations"
    no_record_is_lost(peer, device)


def killed_or_ended(peer: Peer, device: FaultyDevice, deployment_id: str) -> bool:
    """Tell whether the process was killed, or the update came to its end before."""
    return device.was_killed() or has_ended(peer, deployment_id)


def answers_or_died(device: FaultyDevice) -> bool:
    """Tell whether a start came to something."""
    return device.answering_version() is not None or not device.is_running()


def failed_or_ended(peer: Peer, device: FaultyDevice, deployment_id: str, number: int) -> bool:
    """Tell whether an operation that shall fail was reached, or the update came to its end before."""
    return has_failed(device, number) or has_ended(peer, deployment_id)


def has_failed(device: FaultyDevice, first: int) -> bool:
    """Tell whether the operation that shall fail was reached."""
    return any(operation.number >= first for operation in device.operations())
