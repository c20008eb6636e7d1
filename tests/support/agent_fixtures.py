"""Fixtures of the agent's tests; a test module imports those that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fleet.protocol.deployment import DeploymentState
from tests.support.agent_broker import OpenBroker
from tests.support.agent_bundles import Bundle
from tests.support.agent_device import Device
from tests.support.agent_peer import Peer
from tests.support.brokers import RunningBroker, running_broker

MakeDevice = Callable[..., Device]
_numbers = count(1)


def settle(peer: Peer, device: Device, bundle: Bundle) -> None:
    """Start a device and bring it to answer with a version that is committed, by deployment ``d-1``."""
    peer.release(bundle)
    device.start()
    peer.assign(device.id, (bundle, "d-1"))
    peer.wait_report("d-1", DeploymentState.SUCCEEDED)


@pytest.fixture(scope="module", name="broker")
def mosquitto_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """Mosquitto alone, in place of each kind of broker, where the broker is not what is tested."""
    with running_broker("mosquitto", tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(name="open_broker")
def open_broker_fixture(tmp_path: Path) -> Iterator[OpenBroker]:
    """A Mosquitto without the hub's limits, for one test."""
    broker = OpenBroker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture(name="peer")
def peer_fixture(broker: RunningBroker) -> Iterator[Peer]:
    """A hub of this test's own."""
    peer = Peer(broker)
    yield peer
    peer.close()


@pytest.fixture(name="make_device")
def make_device_fixture(peer: Peer, tmp_path: Path) -> Iterator[MakeDevice]:
    """Makes enrolled devices, each with a name that no other test has; ends them."""
    devices: list[Device] = []

    def make(**settings: Any) -> Device:
        devices.append(Device(peer, tmp_path, f"dev-{next(_numbers)}", **settings))
        return devices[-1]

    yield make
    for device in devices:
        device.close()
