"""The agent's main job: from enrolment to telemetry, with a real broker, repository, model and process."""

from __future__ import annotations

from fleet.protocol.deployment import DeploymentState
from tests.support.agent_bundles import build, expected_class
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

S = DeploymentState


def test_a_version_is_delivered_verified_tried_and_committed(peer: Peer, make_device: MakeDevice) -> None:
    bundle = build(1, padding_bytes=200_000)
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
    probabilities = reply.body["outputs"][0]["data"]
    assert probabilities.index(max(probabilities)) == expected_class(1, SAMPLE)

    truth = expected_class(1, SAMPLE)
    prediction_id = reply.body["parameters"]["prediction_id"]
    feedback = {"id": prediction_id, "labels": [truth]}
    assert device.call("POST", "/v2/models/digits/feedback", feedback).body == {"labelled": 1, "correct": 1}
    eventually(lambda: sum(window.labelled for window in peer.windows()) == 1)
    eventually(lambda: sum(window.predictions for window in peer.windows()) == 1)
    assert all(window.manifest_sha256 == bundle.sha256 for window in peer.windows())
    state = peer.wait_running(1, "COMMITTED")
    assert state.sequence == 1
