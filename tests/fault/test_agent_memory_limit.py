"""The agent under a hard limit of 96 MB: the demo's models, downloads, swaps and hostile requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.serving.local_servers import MEMORY_PER_REQUEST
from tests.support.agent_device import UnixConnection
from tests.support.fleet import MODEL, Fleet
from tests.support.hub import HubProcess
from tests.support.memory_limit import MemoryGroup, memory_group
from tests.support.waiting import eventually

LIMIT_BYTES = 96 * 1024**2
REQUEST_LIMIT_BYTES = LIMIT_BYTES // MEMORY_PER_REQUEST
DEMO: tuple[dict[str, Any], ...] = (
    {"estimator": "logistic", "hyperparameters": {"training_share": 0.1}},
    {"estimator": "mlp", "hyperparameters": {"hidden": 64}},
)
"""What the demo trains."""


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group(LIMIT_BYTES) as made:
        yield made


@pytest.fixture
def fleet(group: MemoryGroup, tmp_path: Path) -> Iterator[Fleet]:
    """A hub with a broker, outside the limit, and one device within it."""
    with HubProcess(tmp_path / "hub", broker="embedded") as hub:
        fleet = Fleet(hub, tmp_path, 1)
        for device in fleet.devices.values():
            device.prefix = group.prefix
        try:
            yield fleet
        finally:
            fleet.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_demos_models_are_delivered_served_and_swapped(fleet: Fleet, group: MemoryGroup) -> None:
    (device,) = fleet.devices.values()
    first, second = (fleet.release(**training) for training in DEMO)
    fleet.start()
    for version in (first, second, first, second):
        rollout = fleet.wait_for_status(fleet.roll_out(version, "all"), "SUCCEEDED")
        assert {part["state"] for part in fleet.parts(rollout)} == {"SUCCEEDED"}
    fleet.wait_for_version(second)
    (camera,) = fleet.cameras.values()
    process = group.processes
    assert [_status(device.socket, body) for body in _hostile(REQUEST_LIMIT_BYTES)] == [400] * 6
    assert [_status(device.socket, body) for body in _hostile(4 * REQUEST_LIMIT_BYTES)] == [413] * 6
    before = camera.answers_by_version[str(second)]
    eventually(lambda: camera.answers_by_version[str(second)] > before, "it still answers")
    fleet.stop_cameras()
    assert set(camera.answers_by_version) == {str(first), str(second)}
    assert (group.processes, group.kills) == (process, 0)
    device.stop()


def _hostile(size_bytes: int) -> Iterator[bytes]:
    """Yield bodies of a size, each of another kind that is dear to read."""
    for begin, piece, end in (
        (b"", b"[", b""),
        (b"", b'{"a":', b""),
        (b'{"inputs":[{"name":"input","datatype":"FP32","shape":[9],"data":[', b"1.5,", b"1]}]}"),
        (b'{"inputs":[{"name":"input","datatype":"FP32","shape":[9],"data":[', b"[],", b"1]}]}"),
        (b'{"inputs":[{"name":"input","datatype":"BYTES","shape":[9],"data":[', b'"\\u00e9",', b"1]}]}"),
        (b'{"parameters":{', b'"\\ud83d":0,', b'"a":1}}'),
    ):
        count = (size_bytes - len(begin) - len(end)) // len(piece)
        yield (begin + piece * count + end).ljust(size_bytes)


def _status(socket: Path, body: bytes) -> int:
    """Ask for predictions and return the status of the answer."""
    connection = UnixConnection(socket)
    try:
        connection.request("POST", f"/v2/models/{MODEL}/infer", body)
        return connection.getresponse().status
    finally:
        connection.close()
