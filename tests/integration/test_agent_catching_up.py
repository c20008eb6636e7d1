"""A device comes back after days with thousands of windows: at its rate, reports first, each counted once."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

from agent.settings import read_given, write_settings
from agent.status import read_status
from agent.telemetry.outbox import Outbox
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.messages import Record
from fleet.protocol.records import TelemetryWindow
from tests.support.agent_bundles import build
from tests.support.agent_device import Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.fleet import Invitation
from tests.support.hub import HubProcess
from tests.support.waiting import eventually

RATE_PER_S, IN_FLIGHT = 100, 32
WINDOWS = 4000
"""More than can come while a version is installed, also on a busy machine."""
SPAN_S = 3.0
"""In which the network, or a machine that holds a process up, may bunch what was sent evenly."""
ONE = build(1)


def window(manifest_sha256: str, number: int) -> TelemetryWindow:
    """Return the window of one minute, with some predictions."""
    started_s = 1_700_000_000.0 + 60 * number
    return TelemetryWindow(
        started_s, started_s + 60, "digits", 1, manifest_sha256, "onnx-fp32", predictions=number % 50
    )


def spool(device: Device, budget_bytes: int, windows: list[TelemetryWindow]) -> int:
    """Put windows into the outbox of a device that does not run; return how many records there are then."""
    outbox = Outbox(device.state / "outbox.sqlite", budget_bytes)
    outbox.put(*windows)
    count = len(outbox)
    outbox.close()
    return count


def waiting_records(device: Device) -> int:
    """Return how many records the hub has not acknowledged."""
    return read_status(device.state).unacknowledged_records


def test_it_keeps_its_rate_and_no_report_waits_behind_the_windows(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device(records_per_second=RATE_PER_S, records_in_flight=IN_FLIGHT)
    windows = [window(ONE.sha256, number) for number in range(WINDOWS)]
    assert spool(device, 2**30, windows) == len(windows)
    peer.release(ONE)
    lost: set[int] = set()

    def lose_every_seventh(record: Record) -> bool:
        is_lost = record.number % 7 == 0 and record.number not in lost
        lost.add(record.number)
        return is_lost

    peer.lose_ack = lose_every_seventh
    device.start()
    peer.assign(device.id, (ONE, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    assert len(peer.windows()) < len(windows) / 2, "it overtook windows that are older"
    eventually(lambda: len(peer.windows()) >= 5 * RATE_PER_S, "the windows come")
    arrivals_s = list(peer.arrivals_s)
    busiest = max(bisect_right(arrivals_s, at_s + SPAN_S) - index for index, at_s in enumerate(arrivals_s))
    assert busiest <= 1.5 * SPAN_S * RATE_PER_S + IN_FLIGHT
    assert len(arrivals_s) > len(peer.records), "what was not acknowledged came again"


def test_what_was_merged_and_sent_twice_is_counted_once_by_the_hub(hub: HubProcess, tmp_path: Path) -> None:
    token = hub.client.post("/enrolment-tokens")["token"]
    device = Device(Invitation(hub.url, token), tmp_path, "back-1", records_per_second=20)
    manifest_sha256 = hub.client.get("/models/digits/versions/1")["manifest_sha256"]
    windows = [window(manifest_sha256, number) for number in range(2000)]
    kept = spool(device, 100_000, windows)
    assert kept < len(windows), "the oldest were merged"

    def counted() -> int:
        totals = hub.client.get("/fleet/totals", device_id=device.id)["items"]
        return sum(row["predictions"] for row in totals if row["device_id"] == device.id)

    try:
        before = 0
        for _ in range(2):  # acknowledgements that are on their way are lost with the process
            device.start()
            eventually(lambda seen=before: counted() > seen, "the hub counts on")  # type: ignore[misc]
            device.kill()
            before = counted()
        assert before < sum(record.predictions for record in windows)
        write_settings(device.state, {**read_given(device.state), "records_per_second": 1000})
        device.start()
        eventually(lambda: counted() >= sum(record.predictions for record in windows), "all is counted")
        eventually(lambda: waiting_records(device) == 0, "every record was acknowledged")
        assert counted() == sum(record.predictions for record in windows)
    finally:
        device.close()
