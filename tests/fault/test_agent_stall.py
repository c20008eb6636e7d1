"""A model that is proven quick and then hangs in the event loop: the agent ends itself, and serves again."""

from __future__ import annotations

import threading
from contextlib import suppress

from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_bundles import build_costly
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
    device = make_device(stall_limit_s=2.0, inference_timeout_s=20.0)
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
