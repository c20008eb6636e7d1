"""Power cuts, crashes, broken networks and full disks, on real processes.

After each the device must answer with a version that it verified, and say what happened.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from agent.life.terms import CRASH_LIMIT
from fleet.protocol.chunks import CHUNK_SIZE_BYTES
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.messages import MAX_MESSAGE_SIZE_BYTES
from fleet.protocol.records import DeploymentReport
from fleet.protocol.topics import Down
from tests.support.agent_broker import OpenBroker
from tests.support.agent_bundles import build
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    open_broker_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

ONE, TWO = build(1), build(2)
BIG = build(3, padding_bytes=9 * CHUNK_SIZE_BYTES)


def test_a_download_goes_on_after_a_power_cut_without_fetching_again(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    settle(peer, device, ONE)
    held: set[int] = set()

    def only_five(sha256: str, number: int, data: bytes) -> bytes | None:
        if sha256 == BIG.model_blob:
            if number >= 5:
                return None
            held.add(number)
        return data

    peer.alter_chunk = only_five
    peer.release(BIG)
    peer.assign(device.id, (BIG, "d-2"))
    journal = device.state / "blobs" / f"{BIG.model_blob}.journal"
    eventually(lambda: journal.exists() and journal.stat().st_size == 4 * 5)
    device.kill()
    peer.renew()
    peer.wants.clear()
    peer.alter_chunk = lambda _sha, _number, data: data
    device.start()
    peer.wait_report("d-2", S.SUCCEEDED)
    assert device.answering_version() == "3"
    asked = [want.missing for want in peer.wants if want.sha256 == BIG.model_blob]
    assert asked[0][0][0] == 5
    assert all(first >= 5 for ranges in asked for first, _ in ranges)


@pytest.mark.thorough
def test_a_device_killed_again_and_again_ends_on_a_verified_version(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device(trial_s=1.0)
    settle(peer, device, ONE)
    peer.release(BIG)
    peer.assign(device.id, (BIG, "d-2"))
    delays = random.Random(20).choices([0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8], k=10 if ALL else 4)
    for delay_s in delays:
        time.sleep(delay_s)  # the moment of the power cut, not a synchronisation
        device.kill()
        device.start()
        eventually(device.answering_version)
    end = peer.wait_end("d-2")
    assert end.state in {S.SUCCEEDED, S.ROLLED_BACK, S.FAILED}
    assert (end.cause is None) == (end.state is S.SUCCEEDED)
    device.wait_version(3 if end.state is S.SUCCEEDED else 1)
    peer.wait_settled()
    numbers = [record.number for record in peer.records]
    assert sorted(numbers) == list(range(1, len(numbers) + 1)), "a record was lost"


def test_three_crashes_in_trial_roll_back_before_loading(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    settle(peer, device, ONE)
    device.restart_with(trial_s=60.0)
    peer.release(TWO)
    peer.assign(device.id, (TWO, "d-2"))
    device.wait_version(2)
    for _ in range(CRASH_LIMIT):
        assert device.is_running()
        eventually(lambda: device.answering_version() == "2")
        device.kill()
        device.start()
    end = peer.wait_end("d-2")
    assert (end.state, end.cause and end.cause.code) == (S.ROLLED_BACK, "trial_crashed")
    device.wait_version(1)  # the report can be there before the version that answers is loaded
    assert peer.wait_running(1, "ROLLED_BACK")


def test_a_trial_rolls_back_without_the_network(peer: Peer, make_device: MakeDevice) -> None:
    """The hub is gone when version 2 begins to answer NaN; the report comes when the hub does."""
    device = make_device()
    nan = build(2, negative_gives_nan=True)
    settle(peer, device, ONE)
    device.restart_with(trial_s=60.0)
    peer.release(nan)
    peer.assign(device.id, (nan, "d-2"))
    peer.wait_report("d-2", S.TRIAL)
    peer.away()
    assert device.infer(SAMPLE).body["model_version"] == "2"
    assert device.infer([-1.0, -1.0, -1.0, -1.0]).status == 500
    device.wait_version(1)
    assert device.infer([-1.0, -1.0, -1.0, -1.0]).status == 200
    device.kill()
    device.start()
    device.wait_version(1)
    peer.back()
    end = peer.wait_end("d-2")
    assert (end.state, end.cause and end.cause.code) == (S.ROLLED_BACK, "trial_not_finite")


def test_an_offline_device_answers_and_its_counts_arrive_later(
    open_broker: OpenBroker, tmp_path: Path
) -> None:
    peer = Peer(open_broker)
    device = Device(peer, tmp_path, "dev-offline")
    try:
        settle(peer, device, ONE)
        open_broker.stop()
        for _ in range(20):
            assert device.infer(SAMPLE).status == 200
        device.stop()
        device.start()
        device.wait_version(1)
        counted = 21  # the twenty, and the one with which the wait ended
        open_broker.start()
        eventually(lambda: sum(window.predictions for window in peer.windows()) >= counted)
        assert sum(window.predictions for window in peer.windows()) == counted
    finally:
        device.close()
        peer.close()


def test_an_oversized_packet_costs_one_connection_and_is_not_offered_again(
    open_broker: OpenBroker, tmp_path: Path
) -> None:
    peer = Peer(open_broker)
    device = Device(peer, tmp_path, "dev-oversized")
    try:
        settle(peer, device, ONE)
        hellos = len(peer.hellos)
        peer.send(device.id, Down.FILE, bytes(4 * MAX_MESSAGE_SIZE_BYTES))
        assert peer.wait_incident("message_too_large")
        eventually(lambda: len(peer.hellos) > hellos)
        peer.release(TWO)
        peer.assign(device.id, (TWO, "d-2"))
        peer.wait_report("d-2", S.SUCCEEDED)
    finally:
        device.close()
        peer.close()


def test_too_little_space_is_told_before_a_byte_is_fetched(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    settle(peer, device, ONE)
    device.restart_with(reserve_free_bytes=shutil.disk_usage(device.state).free * 2)
    device.wait_version(1)
    peer.release(TWO)
    peer.wants.clear()
    peer.assign(device.id, (TWO, "d-2"))
    end = peer.wait_end("d-2")
    assert (end.state, end.cause and end.cause.code) == (S.FAILED, "no_space")
    assert peer.wants == []
    assert device.answering_version() == "1"


def test_a_disk_that_fills_up_during_a_download_fails_it_cleanly(peer: Peer, make_device: MakeDevice) -> None:
    """The part is a link to the kernel's full device, so the write fails as on a full disk."""
    device = make_device()
    settle(peer, device, ONE)
    peer.release(TWO)
    (device.state / "blobs" / f"{TWO.model_blob}.part").symlink_to("/dev/full")
    peer.assign(device.id, (TWO, "d-2"))
    end = peer.wait_end("d-2")
    assert (end.state, end.cause and end.cause.code) == (S.FAILED, "no_space")
    assert device.answering_version() == "1"
    peer.assign(device.id, (TWO, "d-3"))
    peer.wait_report("d-3", S.SUCCEEDED)


def test_a_damaged_version_falls_back_and_is_repaired(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    settle(peer, device, ONE)
    peer.release(TWO)
    peer.assign(device.id, (TWO, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    device.stop()
    path = next((device.state / "models" / "digits").glob(f"{TWO.sha256}.*/model.onnx"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    peer.away()
    device.start()
    device.wait_version(1)
    peer.back()
    device.wait_version(2)
    assert peer.wait_incident("storage_corrupt")


def test_a_lost_state_of_the_life_is_no_reason_to_stop(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    settle(peer, device, ONE)
    device.stop()
    (device.state / "life" / "digits.state").write_bytes(b"{damaged")
    device.start()
    device.wait_version(1)
    assert peer.wait_incident("storage_corrupt")
    reports = [r.body for r in peer.records if isinstance(r.body, DeploymentReport)]
    assert {report.deployment_id for report in reports} == {"d-1"}


def test_an_orderly_stop_takes_less_than_a_second(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    settle(peer, device, ONE)
    assert device.stop() < 1.0
    assert not device.socket.exists()
