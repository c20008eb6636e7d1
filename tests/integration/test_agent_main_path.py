"""The agent's main job: from enrolment to telemetry, with a real broker, repository, model and process."""

from __future__ import annotations

import pytest

from fleet.protocol.deployment import DeploymentState
from tests.support.agent_bundles import (
    TFLITE_VARIANT,
    VARIANT,
    build,
    build_halving,
    build_tabular,
    expected_class,
)
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

S = DeploymentState


@pytest.mark.parametrize(
    ("variant", "platform"), [(VARIANT, "onnxruntime_onnx"), (TFLITE_VARIANT, "litert_tflite")]
)
def test_a_version_is_delivered_verified_tried_and_committed(
    peer: Peer, make_device: MakeDevice, variant: str, platform: str
) -> None:
    bundle = build(1, padding_bytes=200_000).ordering(variant)
    peer.release(bundle)
    device = make_device()
    peer.assign(device.id, (bundle, "d-1"))
    device.start()

    peer.wait_report("d-1", S.SUCCEEDED)
    assert [report.state for report in peer.reports("d-1")] == [
        S.DOWNLOADING,
        S.VERIFYING,
        S.STAGED,
        S.TRIAL,
        S.SUCCEEDED,
    ]
    reply = device.infer(SAMPLE)
    assert reply.status == 200
    assert (reply.body["model_name"], reply.body["model_version"]) == ("digits", "1")
    assert device.call("GET", "/v2/models/digits").body["platform"] == platform
    probabilities = reply.body["outputs"][0]["data"]
    assert probabilities.index(max(probabilities)) == expected_class(1, SAMPLE)

    truth = expected_class(1, SAMPLE)
    prediction_id = reply.body["parameters"]["prediction_id"]
    feedback = {"id": prediction_id, "labels": [truth]}
    assert device.call("POST", "/v2/models/digits/feedback", feedback).body == {"labelled": 1, "correct": 1}
    eventually(lambda: sum(window.labelled for window in peer.windows()) == 1)
    eventually(lambda: sum(window.predictions for window in peer.windows()) == 1)
    assert {(w.manifest_sha256, w.variant) for w in peer.windows()} == {(bundle.sha256, variant)}
    assert {want.sha256 for want in peer.wants} == {file.sha256 for file in bundle.files}
    state = peer.wait_running(1, "COMMITTED")
    assert state.sequence == 1


def test_a_device_tells_which_runtimes_it_has(peer: Peer, make_device: MakeDevice) -> None:
    make_device().start()
    hello = eventually(lambda: peer.hellos[-1] if peer.hellos else None)
    assert {"onnxruntime", "litert"} <= hello.capabilities.runtimes.keys()


def test_models_of_text_and_of_frames_run_side_by_side(peer: Peer, make_device: MakeDevice) -> None:
    visits, frames = build_tabular(), build_halving()
    peer.release(visits, frames)
    device = make_device()
    peer.assign(device.id, (visits, "v-1"), (frames, "f-1"))
    device.start()
    peer.wait_report("v-1", S.SUCCEEDED)
    peer.wait_report("f-1", S.SUCCEEDED)

    inputs = [
        {"name": "numbers", "shape": [2, 2], "datatype": "FP32", "data": [None, 0, 0, 0]},
        {"name": "city", "shape": [2, 1], "datatype": "BYTES", "data": ["lyon", "oslo"]},
    ]
    visit = device.call("POST", "/v2/models/visits/infer", {"inputs": inputs}).body
    assert visit["outputs"][1] == {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["no", "yes"]}
    frame = {"name": "frame", "shape": [1, 2, 2], "datatype": "FP32", "data": [2, 4, 6, 8]}
    copy = device.call("POST", "/v2/models/frames/infer", {"inputs": [frame]}).body["outputs"][0]
    assert (copy["shape"], copy["data"]) == ([1, 2, 2], [1, 2, 3, 4])
    eventually(lambda: {window.model for window in peer.windows()} == {"visits", "frames"})
    counted = {window.model: window.profile for window in peer.windows()}
    assert counted["frames"]["output.error"].maximum == 7.5
    assert (counted["visits"]["input.mean"].total, counted["visits"]["input.mean"].missing) == (2, 0)
