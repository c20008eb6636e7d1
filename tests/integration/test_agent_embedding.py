"""A model with an embedding on a real device: it is counted for every answer, and nobody is told of it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import agent
import agent.client
from converters.bundles.bundle import renamed
from fleet.drift.alarms import AlarmState, judge_drift
from fleet.drift.embedding import component_of
from fleet.drift.profile import Profile, merge_profiles
from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_bundles import Bundle
from tests.support.agent_device import Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.digits import digits_conversion, field_part
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

pytestmark = pytest.mark.thorough

WITH, WITHOUT = "embedded-digits", "plain-digits"
COMPONENTS = 3


def bundle(name: str, variant: str, embedding: str) -> Bundle:
    """Return the digits' model as a hub would release it."""
    built = digits_conversion(targets=[variant], embedding=embedding, layout="NHW").bundle
    assert built is not None
    built = renamed(built, name, 1)
    return Bundle(built.manifest, built.blobs, variant)


def ask(device: Device, model: str, images: NDArray[Any]) -> Any:
    tensor = {"name": "input", "shape": images.shape, "datatype": "FP32", "data": images.ravel().tolist()}
    reply = device.call("POST", f"/v2/models/{model}/infer", {"inputs": [tensor]})
    assert reply.status == 200
    return reply.body


def counted(peer: Peer, model: str) -> Profile:
    """Return what the device has told of a model so far."""
    total: Profile = {}
    for window in peer.windows():
        if window.model == model:
            total = merge_profiles(total, window.profile)
    return total


@pytest.mark.parametrize("variant", ["onnx-fp32", "tflite-int8"] if ALL else ["tflite-int8"])
def test_it_is_counted_for_every_answer_and_nobody_is_answered_with_it(
    peer: Peer, make_device: MakeDevice, variant: str
) -> None:
    with_head, plain = bundle(WITH, variant, f"auto:{COMPONENTS}"), bundle(WITHOUT, variant, "")
    peer.release(with_head, plain)
    device = make_device()
    peer.assign(device.id, (with_head, "d-with"), (plain, "d-without"))
    device.start()
    for deployment_id in ("d-with", "d-without"):
        peer.wait_report(deployment_id, S.SUCCEEDED)

    images = field_part().features
    answers = {model: ask(device, model, images[:100]) for model in (WITH, WITHOUT)}
    for answer in answers.values():
        del answer["parameters"], answer["model_name"]
    assert msgspec.json.encode(answers[WITH]) == msgspec.json.encode(answers[WITHOUT])
    told = {model: device.call("GET", f"/v2/models/{model}").body for model in (WITH, WITHOUT)}
    assert {**told[WITH], "name": WITHOUT} == told[WITHOUT]
    named = device.call(
        "POST",
        f"/v2/models/{WITH}/infer",
        {
            "inputs": [{"name": "input", "shape": [1, 8, 8], "datatype": "FP32", "data": [0.0] * 64}],
            "outputs": [{"name": "drift_embedding"}],
        },
    )
    assert named.status == 400
    with agent.client.Client(device.fast_socket) as client:
        assert set(client.model(WITH)(images[100:200]).outputs) == {"probabilities"}
    with agent.open_model(WITH, state=device.state) as model:
        for image in images[200:250]:
            assert set(model(image[None]).outputs) == {"probabilities"}

    names = {f"embedding.{number}" for number in range(COMPONENTS)}
    expected = {"output.class", "output.confidence", *names}
    eventually(
        lambda: counted(peer, WITH).get("embedding.0") and counted(peer, WITH)["embedding.0"].total == 250
    )
    upright = counted(peer, WITH)
    assert expected <= upright.keys()
    assert {(counts.total, counts.missing) for counts in upright.values()} == {(250, 0)}
    assert not names & counted(peer, WITHOUT).keys()
    assert not any(each.drifted for each in judge_drift(with_head.manifest.reference, upright, AlarmState()))

    turned = np.ascontiguousarray(np.rot90(images[250:500], 1, (1, 2)))
    ask(device, WITH, turned)
    eventually(lambda: counted(peer, WITH)["embedding.0"].total == 500)
    judged = judge_drift(with_head.manifest.reference, counted(peer, WITH), AlarmState())
    drifted = {each.feature for each in judged if each.drifted}
    assert "embedding.0" in drifted
    assert not any(name.startswith("input.") for name in drifted)
    assert max(component_of(name) or 0 for name in drifted) < COMPONENTS
