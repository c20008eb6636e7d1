"""The wall clock of a device is set by years, either way, while its agent runs and across a restart.

Nothing that waits follows that clock. What it decides is whether an order and metadata are in time: those are
refused while it is wrong, what was accepted before goes on, and all is well when it is right again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.windows import contradiction
from tests.support.agent_bundles import build
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    mosquitto_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.faulty_device import FaultyDevice
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

ONE, TWO, THREE = build(1), build(2), build(3)
YEAR_S = 365 * 86400.0
LONGEST_TEST_S = 120.0
_numbers = count(1)

FORWARDS_S = 10 * YEAR_S
either_way = pytest.mark.parametrize("step_s", [FORWARDS_S, -FORWARDS_S], ids=["forwards", "backwards"])


@pytest.fixture(name="device")
def device_fixture(peer: Peer, tmp_path: Path) -> Iterator[FaultyDevice]:
    """A device that answers with version 1."""
    device = FaultyDevice(
        peer, tmp_path, f"dev-clock-{next(_numbers)}", trust_refresh_interval_s=0.3, hello_interval_s=0.5
    )
    settle(peer, device, ONE)
    yield device
    device.close()


def windows_are_sane(peer: Peer, given: int) -> None:
    """Check that so many predictions are counted, in windows as long as the time that passed."""
    eventually(lambda: sum(window.predictions for window in peer.windows()) >= given)
    assert sum(window.predictions for window in peer.windows()) == given
    for window in peer.windows():
        assert contradiction(window) is None
        assert window.ended_at_s - window.started_at_s < LONGEST_TEST_S


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("step_s", "restarted"),
    [(FORWARDS_S, True), (-FORWARDS_S, False), *([(FORWARDS_S, False), (-FORWARDS_S, True)] if ALL else [])],
)
def test_a_device_whose_clock_is_set_by_years_serves_and_comes_back(
    peer: Peer, device: FaultyDevice, step_s: float, restarted: bool
) -> None:
    assert device.infer(SAMPLE).status == 200
    device.set_clock(step_s)
    if restarted:
        device.kill() if step_s > 0 else device.stop()
        device.start()
        device.wait_version(1)
    else:
        assert device.infer(SAMPLE).status == 200
    peer.release(TWO)
    heard = len(peer.states)
    peer.assign(device.id, (TWO, "d-2"))
    peer.wait_incident("assignment_expired")
    if step_s > 0:
        peer.wait_incident("metadata_rejected")
    assert device.infer(SAMPLE).body["model_version"] == "1"
    eventually(lambda: len(peer.states) > heard + 1, "heartbeats go on")
    assert not peer.reports("d-2")
    device.set_clock(0.0)
    peer.wait_report("d-2", S.SUCCEEDED)
    device.wait_version(2)
    assert device.is_running()


@either_way
def test_windows_and_a_trial_last_as_long_as_they_do(peer: Peer, device: FaultyDevice, step_s: float) -> None:
    for offset_s in (0.0, step_s, 0.0):
        device.set_clock(offset_s)
        for _ in range(5):
            assert device.infer(SAMPLE).status == 200
    windows_are_sane(peer, 15)
    peer.release(TWO)
    peer.assign(device.id, (TWO, "d-2"))
    peer.wait_report("d-2", S.TRIAL)
    device.set_clock(step_s)
    peer.wait_report("d-2", S.SUCCEEDED)
    device.wait_version(2)
    windows_are_sane(peer, 16)


@either_way
def test_an_update_during_which_the_clock_is_set_ends_with_a_verified_version(
    peer: Peer, device: FaultyDevice, step_s: float
) -> None:
    """The order was in time, so it is not refused any more; the metadata may be."""
    peer.alter_chunk = lambda sha256, _number, data: None if sha256 == TWO.model_blob else data
    peer.release(TWO)
    peer.assign(device.id, (TWO, "d-2"))
    eventually(lambda: any(want.sha256 == TWO.model_blob for want in peer.wants))
    device.set_clock(step_s)
    device.kill()
    device.start()
    device.wait_version(1)
    peer.alter_chunk = lambda _sha256, _number, data: data
    if step_s > 0:
        end = peer.wait_end("d-2")
        assert (end.state, end.cause and end.cause.code) == (S.REJECTED, "metadata_rejected")
        assert device.answering_version() == "1"
    else:
        peer.wait_report("d-2", S.SUCCEEDED)
    device.set_clock(0.0)
    peer.release(THREE)
    peer.assign(device.id, (THREE, "d-3"))
    peer.wait_report("d-3", S.SUCCEEDED)
    device.wait_version(3)
