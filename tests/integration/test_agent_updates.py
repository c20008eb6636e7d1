"""Versions that follow one another on a real device: updates, orders that change, removal, going back."""

from __future__ import annotations

import threading

from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.records import DeploymentReport
from tests.support.agent_bundles import VARIANT, build
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

ONE, TWO, THREE = build(1), build(2), build(3)


def test_an_update_fetches_only_what_changed_and_going_back_fetches_nothing(
    peer: Peer, make_device: MakeDevice
) -> None:
    peer.release(ONE, TWO)
    device = make_device()
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    peer.wants.clear()
    peer.assign(device.id, (TWO, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    assert device.answering_version() == "2"
    held = {file.sha256 for file in ONE.files}
    assert {want.sha256 for want in peer.wants} == {file.sha256 for file in TWO.files} - held

    peer.wants.clear()
    peer.assign(device.id, (ONE, "d-3"))
    peer.wait_report("d-3", S.SUCCEEDED)
    assert device.answering_version() == "1"
    assert peer.wants == []
    assert [path.name for path in sorted((device.state / "models" / "digits").iterdir())] == sorted(
        f"{bundle.sha256}.{VARIANT}" for bundle in (ONE, TWO)
    )


def test_requests_are_answered_throughout_an_update(peer: Peer, make_device: MakeDevice) -> None:
    peer.release(ONE, TWO)
    device = make_device()
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    answers: list[tuple[int, str]] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            reply = device.infer(SAMPLE)
            answers.append((reply.status, reply.body["model_version"]))

    asking = threading.Thread(target=ask)
    asking.start()
    peer.assign(device.id, (TWO, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    eventually(lambda: answers and answers[-1][1] == "2")
    enough.set()
    asking.join()
    assert {status for status, _ in answers} == {200}
    versions = [version for _, version in answers]
    assert versions == sorted(versions), "an old version answered after the new one"
    assert set(versions) == {"1", "2"}


def test_the_active_version_succeeds_at_once_for_a_new_deployment(
    peer: Peer, make_device: MakeDevice
) -> None:
    peer.release(ONE)
    device = make_device()
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    peer.assign(device.id, (ONE, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    assert [report.state for report in peer.reports("d-2")] == [S.SUCCEEDED]


def test_a_newer_order_cancels_and_a_missing_model_is_removed(peer: Peer, make_device: MakeDevice) -> None:
    other = build(1, model="faces")
    peer.release(ONE, TWO, THREE, other)
    device = make_device(trial_s=30.0)
    device.start()
    peer.assign(device.id, (ONE, "d-1"), (other, "f-1"))
    peer.wait_report("d-1", S.TRIAL)
    peer.wait_report("f-1", S.TRIAL)
    assert device.infer(SAMPLE, model="faces").status == 200
    peer.assign(device.id, (TWO, "d-2"))
    assert peer.wait_end("d-1").state is S.CANCELED
    removed = peer.wait_end("f-1")
    assert (removed.state, removed.model, removed.version) == (S.REMOVED, "faces", 0)
    peer.wait_report("d-2", S.TRIAL)
    eventually(lambda: device.infer(SAMPLE, model="faces").status == 404)
    assert not (device.state / "models" / "faces").exists()
    numbers = {
        record.body.deployment_id: record.number
        for record in peer.records
        if isinstance(record.body, DeploymentReport) and record.body.state in {S.DOWNLOADING, S.REMOVED}
    }
    assert numbers["d-2"] < numbers["f-1"], "removal must come after the new orders"


def test_orders_and_reports_outlive_a_hub_that_is_away(peer: Peer, make_device: MakeDevice) -> None:
    """The hub acknowledges nothing at first: every record comes again, and is stored once."""
    from fleet.protocol.topics import Up

    peer.release(ONE)
    device = make_device()
    peer.silent.add(Up.RECORD)
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    peer.wait_running(1, "COMMITTED")
    device.stop()
    peer.renew()
    peer.silent.clear()
    device.start()
    device.wait_version(1)
    peer.wait_settled()
    assert [r.state for r in peer.reports("d-1")] == [
        S.DOWNLOADING,
        S.VERIFYING,
        S.STAGED,
        S.TRIAL,
        S.SUCCEEDED,
    ]
