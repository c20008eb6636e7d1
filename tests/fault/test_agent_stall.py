"""Models that hang: in the event loop, where the agent ends itself; on the fast path, during a trial."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np
import pytest

import agent.client
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.errors import InferenceTimedOut
from tests.support.agent_bundles import build, build_costly
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

BRIGHT = [1000.0, *SAMPLE[1:]]
"""Takes a loop of more rounds than anybody waits for."""


def test_a_model_that_hangs_in_the_event_loop_ends_the_agent(peer: Peer, make_device: MakeDevice) -> None:
    bundle = build_costly(1, rounds=1_000_000)
    peer.release(bundle)
    device = make_device(stall_limit_s=4.0, inference_timeout_s=20.0)
    device.start()
    peer.assign(device.id, (bundle, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    for _ in range(400):  # so that it is proven quick, whatever else the machine does
        assert device.infer(SAMPLE).status == 200

    def hang() -> None:
        with suppress(OSError):
            device.infer(BRIGHT)

    hanging = threading.Thread(target=hang)
    hanging.start()
    eventually(lambda: not device.is_running(), "the process has ended")
    hanging.join()
    device.start()
    device.wait_version(1)
    assert peer.reports("d-1")[-1].state is S.SUCCEEDED


def test_a_hang_on_the_fast_path_ends_a_trial(peer: Peer, make_device: MakeDevice) -> None:
    one, two = build(1), build_costly(2, rounds=1_000_000)
    peer.release(one, two)
    device = make_device(inference_timeout_s=2.0)
    device.start()
    peer.assign(device.id, (one, "d-1"))
    peer.wait_report("d-1", S.SUCCEEDED)
    device.restart_with(trial_s=30.0)
    device.wait_version(1)
    with (
        agent.client.connect(device.fast_socket) as client,
        agent.client.connect(device.fast_socket) as other,
    ):
        model, sample = client.model("digits"), np.array([SAMPLE], dtype=np.float32)
        peer.assign(device.id, (two, "d-2"))
        peer.wait_report("d-2", S.TRIAL)
        eventually(lambda: model(sample).version == 2)
        with pytest.raises(InferenceTimedOut):
            model(np.array([BRIGHT], dtype=np.float32))
        end = peer.wait_end("d-2")
        assert end.state is S.ROLLED_BACK
        assert end.cause is not None
        assert end.cause.code == "trial_hung"
        eventually(lambda: other.model("digits")(sample).version == 1)
        assert model(sample).version == 1
