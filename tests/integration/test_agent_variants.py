"""A real device that is left a choice of variants: it measures, chooses, remembers, and survives bad ones."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.life.measurements import Entry
from fleet.protocol.assignment import VariantPolicy as P
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.messages import ModelState
from fleet.protocol.records import Measurement
from fleet.variants import check_measurement, choose, class_of
from tests.support.agent_bundles import SLOW, TFLITE_VARIANT, VARIANT, WRONG, build
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.brokers import RunningBroker
from tests.support.faulty_device import FaultyDevice
from tests.support.small_disk import on_small_disk, small_disk
from tests.support.waiting import eventually

CHOICE = build(1, others=(SLOW, WRONG))


def installed(device: Device) -> set[str]:
    """Return the variants that are on the device's disk."""
    return {path.name.partition(".")[2] for path in (device.state / "models" / "digits").iterdir()}


def measured(peer: Peer, deployment_id: str) -> Measurement:
    """Return the one measurement of a deployment, when it has come."""
    return eventually(lambda: peer.measurements(deployment_id) or None)[0]


def running(peer: Peer, deployment_id: str) -> str | None:
    """Return the variant that answers once a deployment has committed it, by the last heartbeat."""

    def told() -> ModelState | None:
        states = peer.wait_running(1, "COMMITTED").models
        return next((state for state in states if state.deployment_id == deployment_id), None)

    return eventually(told, f"a heartbeat tells of {deployment_id}").variant


def entries(device: Device) -> list[Entry]:
    """Return what the device remembers; nothing before the file is there."""
    path = device.state / "variants.json"
    return msgspec.json.decode(path.read_bytes(), type=list[Entry]) if path.exists() else []


def test_a_device_measures_what_it_is_offered_and_keeps_only_the_winner(
    peer: Peer, make_device: MakeDevice
) -> None:
    peer.release(CHOICE)
    device = make_device()
    device.start()
    peer.assign(device.id, (CHOICE.offering(P.FASTEST, SLOW, VARIANT, TFLITE_VARIANT), "d-1"))
    assert peer.wait_end("d-1").state is S.SUCCEEDED
    measurement = measured(peer, "d-1")
    check_measurement(measurement, CHOICE.sha256)
    assert class_of(measurement) == class_of(peer.hellos[-1].capabilities)
    assert measurement.hardware
    by_name = {candidate.variant: candidate for candidate in measurement.candidates}
    assert by_name.keys() == {SLOW, VARIANT, TFLITE_VARIANT}
    assert by_name[SLOW].median_us > 10 * by_name[VARIANT].median_us > 0
    assert by_name[SLOW].cpu_us > 10 * by_name[VARIANT].cpu_us > 0
    assert {name: candidate.runtime for name, candidate in by_name.items()} == {
        SLOW: "onnxruntime",
        VARIANT: "onnxruntime",
        TFLITE_VARIANT: "litert",
    }
    assert measurement.chosen in {VARIANT, TFLITE_VARIANT}
    assert running(peer, "d-1") == measurement.chosen
    eventually(lambda: installed(device) == {measurement.chosen})
    assert device.infer(SAMPLE).status == 200

    # Another model does not matter to the cache; the same bundle again is not measured again.
    wants = len(peer.wants)
    peer.assign(device.id, (CHOICE.offering(P.FASTEST, VARIANT, SLOW, TFLITE_VARIANT), "d-2"))
    assert peer.wait_end("d-2").state is S.SUCCEEDED
    assert (peer.measurements("d-2"), len(peer.wants)) == ([], wants)
    assert running(peer, "d-2") == measurement.chosen

    # By another policy the same measurement may say something else.
    peer.assign(device.id, (CHOICE.offering(P.COOLEST, SLOW, VARIANT, TFLITE_VARIANT), "d-3"))
    assert peer.wait_end("d-3").state is S.SUCCEEDED
    coolest = choose(measurement.candidates, P.COOLEST)
    assert coolest is not None
    assert (peer.measurements("d-3"), running(peer, "d-3")) == ([], coolest.variant)


def test_what_was_measured_is_measured_again_where_the_file_is_damaged(
    peer: Peer, make_device: MakeDevice
) -> None:
    two = build(2)
    peer.release(CHOICE, two)
    device = make_device()
    device.start()
    offered = CHOICE.offering(P.FASTEST, VARIANT, TFLITE_VARIANT)
    peer.assign(device.id, (offered, "d-1"))
    assert peer.wait_end("d-1").state is S.SUCCEEDED
    peer.assign(device.id, (two, "d-2"))
    assert peer.wait_end("d-2").state is S.SUCCEEDED
    device.stop()
    (device.state / "variants.json").write_bytes(b'[{"manifest_sha256": 1')
    device.start()
    peer.assign(device.id, (offered, "d-3"))
    assert peer.wait_end("d-3").state is S.SUCCEEDED
    assert measured(peer, "d-3").chosen == running(peer, "d-3")


def test_a_variant_that_answers_wrongly_is_left_out_and_told(peer: Peer, make_device: MakeDevice) -> None:
    peer.release(CHOICE)
    device = make_device()
    device.start()
    peer.assign(device.id, (CHOICE.offering(P.COOLEST, WRONG, VARIANT), "d-1"))
    assert peer.wait_end("d-1").state is S.SUCCEEDED
    assert WRONG in peer.wait_incident("self_test_failed").cause.detail
    measurement = measured(peer, "d-1")
    wrong = next(candidate for candidate in measurement.candidates if candidate.variant == WRONG)
    assert wrong.cause is not None
    assert (wrong.cause.code, wrong.median_us) == ("self_test_failed", 0.0)
    assert (measurement.chosen, running(peer, "d-1")) == (VARIANT, VARIANT)


def test_a_deployment_of_which_every_variant_is_wrong_fails_for_the_reason_of_the_first(
    peer: Peer, make_device: MakeDevice
) -> None:
    wrong = build(1, golden_error=0.5)
    peer.release(wrong)
    device = make_device()
    device.start()
    peer.assign(device.id, (wrong.offering(P.FASTEST, TFLITE_VARIANT, VARIANT), "d-1"))
    end = peer.wait_end("d-1")
    assert end.state is S.FAILED
    assert end.cause is not None
    assert end.cause.code == "self_test_failed"
    assert TFLITE_VARIANT in end.cause.detail
    assert measured(peer, "d-1").chosen is None


def test_the_smallest_variant_that_is_wrong_gives_way_to_the_next_and_no_other_is_fetched(
    peer: Peer, make_device: MakeDevice
) -> None:
    peer.release(CHOICE)
    device = make_device()
    device.start()
    peer.assign(device.id, (CHOICE.offering(P.SMALLEST, WRONG, VARIANT, SLOW), "d-1"))
    assert peer.wait_end("d-1").state is S.SUCCEEDED
    again = [report.cause for report in peer.reports("d-1") if report.state is S.DOWNLOADING]
    assert [cause.code if cause else None for cause in again] == [None, "self_test_failed"]
    assert running(peer, "d-1") == VARIANT
    assert CHOICE.ordering(SLOW).model_blob not in {want.sha256 for want in peer.wants}
    assert peer.measurements("d-1") == []


def test_a_variant_with_which_the_process_ends_is_left_out_after_the_next_start(
    peer: Peer, tmp_path: Path
) -> None:
    peer.release(CHOICE)
    device = FaultyDevice(peer, tmp_path, "dev-under-test")
    try:
        device.plan("under", SLOW)
        device.start()
        peer.assign(device.id, (CHOICE.offering(P.FASTEST, VARIANT, SLOW), "d-1"))
        device.wait_killed()
        assert [entry.under_test for entry in entries(device)] == [SLOW]
        device.plan("none")
        device.start()
        assert peer.wait_end("d-1").state is S.SUCCEEDED
        measurement = measured(peer, "d-1")
        assert {c.variant: c.cause is None for c in measurement.candidates} == {VARIANT: True, SLOW: False}
        assert running(peer, "d-1") == VARIANT
    finally:
        device.close()


def test_an_orderly_stop_in_the_middle_of_a_measurement_leaves_nothing_out(
    peer: Peer, make_device: MakeDevice
) -> None:
    peer.release(CHOICE)
    device = make_device()
    device.start()
    peer.assign(device.id, (CHOICE.offering(P.FASTEST, SLOW, VARIANT), "d-1"))
    eventually(lambda: [entry.under_test for entry in entries(device)] == [SLOW])
    device.stop()
    device.start()
    assert peer.wait_end("d-1").state is S.SUCCEEDED
    assert [c.cause for c in measured(peer, "d-1").candidates] == [None, None]


@on_small_disk
def test_only_the_first_is_fetched_where_there_is_no_room_for_all(
    broker: RunningBroker, tmp_path: Path
) -> None:
    large = build(1, padding_bytes=4 * 2**20)
    with small_disk(tmp_path / "disk", 3 * 2**20) as disk:
        peer = Peer(broker)
        device = Device(peer, disk.folder, "dev-small")
        try:
            peer.release(large)
            device.start()
            peer.assign(device.id, (large.offering(P.FASTEST, TFLITE_VARIANT, VARIANT), "d-1"))
            assert peer.wait_end("d-1").state is S.SUCCEEDED
            assert peer.wait_incident("no_space")
            assert (running(peer, "d-1"), peer.measurements("d-1")) == (TFLITE_VARIANT, [])
            assert large.ordering(VARIANT).model_blob not in {want.sha256 for want in peer.wants}
        finally:
            device.close()
            peer.close()
