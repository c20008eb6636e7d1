"""The way to the broker goes bad, or the broker does: the agent serves all the time and comes back by itself.

A proxy stands between the two; what it does to connections is in ``tests/support/fault_proxy.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from agent.identity import read_identity, write_identity
from fleet.protocol.chunks import CHUNK_SIZE_BYTES
from fleet.protocol.deployment import DeploymentState as S
from hub.broker.kinds import Kind
from tests.support.agent_bundles import build
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    mosquitto_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.brokers import RunningBroker, running_broker
from tests.support.fault_proxy import FaultProxy, Mode, Weather
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

pytestmark = pytest.mark.thorough

ONE, TWO, THREE = build(1), build(2), build(3)
LARGE = build(4, padding_bytes=12 * CHUNK_SIZE_BYTES)
KEEPALIVE_S = 3  # a busy machine can hold a process up for a second
ATTEMPTS = {Mode.REFUSE: 6, Mode.GARBAGE: 20 if ALL else 6, Mode.MUTE: 2 if ALL else 1, Mode.FROZEN: 1}
"""Connections for which the fault lasts. A mute broker has its time for each, a frozen one first shows."""
_numbers = count(1)


@pytest.fixture(name="proxy")
def proxy_fixture(broker: RunningBroker) -> Iterator[FaultProxy]:
    proxy = FaultProxy(broker.port)
    yield proxy
    proxy.close()


@pytest.fixture(name="device")
def device_fixture(peer: Peer, proxy: FaultProxy, tmp_path: Path) -> Iterator[Device]:
    """A device behind the proxy that answers with version 1."""
    device = Device(
        peer,
        tmp_path,
        f"dev-network-{next(_numbers)}",
        keepalive_s=KEEPALIVE_S,
        delivery_window_chunks=2,
        delivery_attempts=50,
        fetch_attempts=50,
    )
    identity = read_identity(device.state)
    through = msgspec.structs.replace(identity.broker, port=proxy.port)
    write_identity(device.state, msgspec.structs.replace(identity, broker=through))
    settle(peer, device, ONE)
    yield device
    device.close()


def every_prediction_is_counted(peer: Peer, given: int) -> None:
    """Check that exactly so many predictions come to be counted."""
    eventually(lambda: sum(window.predictions for window in peer.windows()) >= given)
    peer.wait_settled()
    assert sum(window.predictions for window in peer.windows()) == given


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.MUTE, Mode.GARBAGE, Mode.FROZEN])
def test_a_broker_that_is_no_broker_for_a_while(
    peer: Peer, proxy: FaultProxy, device: Device, mode: Mode
) -> None:
    connections, hellos = proxy.connections, len(peer.hellos)
    proxy.become(mode)
    attempts = ATTEMPTS[mode]
    eventually(lambda: proxy.connections >= connections + attempts, f"{attempts} connections more")
    for _ in range(10):
        assert device.infer(SAMPLE).status == 200
    peer.release(TWO)
    peer.assign(device.id, (TWO, "d-2"))
    proxy.become(Mode.FORWARD)
    eventually(lambda: len(peer.hellos) > hellos)
    peer.wait_report("d-2", S.SUCCEEDED)
    device.wait_version(2)
    every_prediction_is_counted(peer, 11)  # one more was asked for by the wait
    log = device.state.with_name(f"{device.id}.log").read_text("utf-8")
    assert "Traceback" not in log, log[-4000:]


def test_a_large_version_comes_over_a_slow_link_that_breaks(
    peer: Peer, proxy: FaultProxy, device: Device
) -> None:
    """No connection lasts long enough for half of it, so what is held has to count."""
    size_bytes = LARGE.manifest.files(LARGE.variant)[0].size_bytes
    cut_after = (2 * CHUNK_SIZE_BYTES, 5 * CHUNK_SIZE_BYTES)
    proxy.weather = Weather(latency_s=0.002, bytes_per_s=8e6, cut_after_bytes=cut_after, most_bytes=64 * 1024)
    proxy.cut()
    before, earlier_bytes = proxy.connections, sum(proxy.received_bytes)
    peer.release(LARGE)
    peer.assign(device.id, (LARGE, "d-4"))
    eventually(lambda: peer.reports("d-4") and peer.reports("d-4")[-1].state.is_terminal, timeout_s=60)
    assert peer.reports("d-4")[-1].state is S.SUCCEEDED
    device.wait_version(4)
    connections = proxy.connections - before
    assert connections >= size_bytes / cut_after[1]
    assert max(proxy.received_bytes[before:]) <= cut_after[1] < size_bytes / 2
    # What a cut costs: what was asked for and is under way, from the session and once more by the request.
    lost_bytes = connections * 2 * 2 * CHUNK_SIZE_BYTES
    assert sum(proxy.received_bytes) - earlier_bytes < 1.2 * size_bytes + lost_bytes
    every_prediction_is_counted(peer, 1)


@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
def test_a_broker_is_replaced_by_one_that_knows_nothing(
    peer: Peer, proxy: FaultProxy, device: Device, broker: RunningBroker, kind: Kind
) -> None:
    """No session, no retained message and no subscription is left, and it may be another program."""
    with TemporaryDirectory() as folder, running_broker(kind, Path(folder)) as replacement:
        proxy.become(Mode.REFUSE)
        peer.away()
        for _ in range(10):
            assert device.infer(SAMPLE).status == 200
        replacement.passwords[device.id] = broker.passwords[device.id]
        replacement.apply_accounts()
        proxy.target_port = replacement.port
        peer.move(replacement)
        proxy.become(Mode.FORWARD)
        peer.release(TWO)
        peer.assign(device.id, (TWO, "d-2"))
        peer.wait_report("d-2", S.SUCCEEDED)
        device.wait_version(2)
        every_prediction_is_counted(peer, 11)
        peer.move(broker)
        proxy.target_port = broker.port
        proxy.cut()
        peer.release(THREE)
        peer.assign(device.id, (THREE, "d-3"))
        peer.wait_report("d-3", S.SUCCEEDED)
