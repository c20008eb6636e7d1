"""Orders that come again, keys of the director that grow old or are lost, damaged records: a real agent."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import msgspec

from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.records import Incident
from fleet.protocol.topics import Down
from tests.support.agent_bundles import build
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

ONE, TWO = build(1), build(2)
TIMESTAMP = "metadata/timestamp.json"


def incidents(peer: Peer) -> list[str]:
    """Return the codes of the incidents that were told, in their order."""
    return [record.body.cause.code for record in peer.records if isinstance(record.body, Incident)]


def test_the_same_orders_with_other_times_are_no_incident(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    peer.release(ONE, TWO)
    device.start()
    sign = peer.repository.director.sign
    older = peer.assign(device.id, (ONE, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    last = peer.assign(device.id, (TWO, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    repeated = msgspec.structs.replace(last, issued_at_s=last.issued_at_s - 1)
    other = msgspec.structs.replace(last, models=older.models)
    peer.send(device.id, Down.ASSIGNMENT, sign(repeated))
    peer.send(device.id, Down.ASSIGNMENT, b"of another code, behind the repetition")
    eventually(lambda: incidents(peer) == ["signature_invalid"], "only the forged message is an incident")
    peer.send(device.id, Down.ASSIGNMENT, sign(other))
    eventually(lambda: incidents(peer) == ["signature_invalid", "assignment_replayed"])
    assert device.answering_version() == "2"


def test_the_directors_keys_are_asked_for_again_without_a_new_connection(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device(trust_refresh_interval_s=0.2, hello_interval_s=3600.0)
    device.start()
    eventually(lambda: peer.fetches.count(TIMESTAMP) >= 4, "the metadata is refreshed at its interval")
    assert len(peer.hellos) == 1


def test_lost_keys_are_fetched_again_and_old_orders_stay_refused(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    peer.release(ONE, TWO)
    device.start()
    older = peer.assign(device.id, (ONE, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    peer.assign(device.id, (TWO, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    device.stop()
    keys = device.state / "trust" / "director.json"
    whole = keys.read_bytes()
    keys.write_bytes(whole[:5])
    device.start()
    eventually(lambda: keys.exists() and keys.read_bytes() == whole, "the keys were fetched again")
    peer.send(device.id, Down.ASSIGNMENT, peer.repository.director.sign(older))
    eventually(lambda: "assignment_replayed" in incidents(peer))
    device.wait_version(2)


def test_a_damaged_record_gives_its_place_up_and_is_told_of(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device(records_in_flight=1)
    settle(peer, device, ONE)
    device.stop()
    with closing(sqlite3.connect(device.state / "outbox.sqlite")) as database:
        database.execute("DELETE FROM record")
        database.execute("INSERT INTO record (body) VALUES (?)", (b"\xc1",))
        database.commit()
    started_s = time.time()
    device.start()
    peer.assign(device.id, (ONE, "d-2"))
    peer.wait_report("d-2", S.SUCCEEDED)
    eventually(lambda: "storage_corrupt" in incidents(peer))
    assert all(
        record.body.at_s >= started_s
        for record in peer.records
        if isinstance(record.body, Incident) and record.body.cause.code == "storage_corrupt"
    )
