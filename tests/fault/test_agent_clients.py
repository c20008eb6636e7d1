"""Local clients that send garbage, send slowly, never read, or come in crowds: everybody else is served.

While they hold on to their connections, a well-behaved client is answered and an update comes to its end, for
which the agent needs descriptors of its own.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from agent.serving.fast_frames import MAGIC, Described, Header, Kind, Place, pack_head
from agent.settings import read_settings
from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_bundles import build
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    mosquitto_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.brokers import RunningBroker
from tests.support.faulty_device import FaultyDevice
from tests.support.waiting import eventually

OPEN_FILES = 256
CROWD = 500
_versions = count(1)


class Door(NamedTuple):
    """A way into the agent.

    Attributes:
        path: Of its socket.
        request: Returns a whole request for so many samples, which ends with their bytes.
        answer: How a good answer begins.
    """

    path: Callable[[FaultyDevice], Path]
    request: Callable[[int], bytes]
    answer: bytes


def http_request(samples: int) -> bytes:
    tensor = {"name": "pixels", "shape": [samples, 4], "datatype": "FP32", "data": SAMPLE * samples}
    body = msgspec.json.encode({"inputs": [tensor]})
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def fast_request(samples: int) -> bytes:
    """Return the frames that open the model and ask it."""
    name, data = b"digits", np.array(SAMPLE * samples, dtype="<f4").tobytes()
    head = pack_head([Described("pixels", "float32", (samples, 4), Place.DATA, 0, 0, len(data))])
    opening = Header(Kind.OPEN, data_bytes=len(name)).pack() + name
    return (
        opening
        + Header(Kind.INFER, handle=1, head_bytes=len(head), data_bytes=len(data)).pack()
        + head
        + data
    )


DOORS = {
    "http": Door(lambda device: device.socket, http_request, b"HTTP/1.1 200"),
    "fast": Door(
        lambda device: read_settings(device.state).fast_socket(device.state),
        fast_request,
        MAGIC + b"\x81\x00",
    ),
}

Client = Callable[[Path, Door, ExitStack], None]


@pytest.fixture(name="peer", scope="module")
def module_peer_fixture(broker: RunningBroker) -> Iterator[Peer]:
    peer = Peer(broker)
    yield peer
    peer.close()


@pytest.fixture(name="device", scope="module")
def device_fixture(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDevice]:
    """A device that may have few files open, for all clients, one kind after the other."""
    device = FaultyDevice(peer, tmp_path_factory.mktemp("device"), "dev-clients")
    device.start()
    update(peer, device)
    device.limit_open_files(OPEN_FILES)
    yield device
    device.close()


def update(peer: Peer, device: FaultyDevice) -> int:
    """Bring a device to a version that it has never seen; return its number."""
    version = next(_versions)
    bundle = build(version)
    peer.release(bundle)
    peer.assign(device.id, (bundle, f"d-{version}"))
    peer.wait_report(f"d-{version}", S.SUCCEEDED)
    return version


def connect(path: Path, number: int, holding: ExitStack) -> list[socket.socket]:
    """Open so many connections."""
    held = []
    for _ in range(number):
        held.append(holding.enter_context(socket.socket(socket.AF_UNIX)))
        held[-1].connect(str(path))  # without a time limit, it waits for its turn in a crowd
        held[-1].settimeout(10)
    return held


def send(client: socket.socket, data: bytes) -> None:
    """Send what the other side takes; it may have ended the connection, or stopped taking."""
    client.settimeout(0.2)
    with suppress(OSError):
        client.sendall(data)


def garbage(path: Path, door: Door, holding: ExitStack) -> None:
    rng = random.Random(1)
    held = connect(path, 50, holding)
    for client in held:
        send(client, rng.randbytes(rng.randrange(1, 5000)))


def an_endless_head(path: Path, door: Door, holding: ExitStack) -> None:
    held = connect(path, 3, holding)
    for client in held:
        send(client, door.request(1)[:40] + bytes(16 * 2**20))


def slowly(path: Path, door: Door, holding: ExitStack) -> None:
    """One byte of a request after the other, of each."""
    held = connect(path, 100, holding)
    for position in range(10):
        for client in held:
            send(client, door.request(1)[position : position + 1])


def never_reading(path: Path, door: Door, holding: ExitStack) -> None:
    """Requests in a row for answers that nobody takes."""
    held = connect(path, 4, holding)
    for client in held:
        send(client, door.request(3000) * 20)


def in_a_crowd(path: Path, door: Door, holding: ExitStack) -> None:
    connect(path, CROWD, holding)


def half_closed(path: Path, door: Door, holding: ExitStack) -> None:
    """Done with sending: in the middle of a request, after a whole one, before any."""
    held = connect(path, 15, holding)
    for client, data in zip(held, [door.request(1)[:-5], door.request(1), b""] * 5, strict=True):
        send(client, data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
    assert held[1].recv(100).startswith(door.answer)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(
    "client",
    [garbage, an_endless_head, slowly, never_reading, in_a_crowd, half_closed],
    ids=lambda f: f.__name__,
)
def test_bad_clients_harm_nobody_else(peer: Peer, device: FaultyDevice, door: Door, client: Client) -> None:
    before = device.open_files()
    with ExitStack() as holding:
        client(door.path(device), door, holding)
        for _ in range(20):
            assert device.infer(SAMPLE).status == 200
        device.wait_version(update(peer, device))
    eventually(lambda: device.open_files() <= before + 5, "their descriptors are given back")
    with ExitStack() as holding:
        (good,) = connect(door.path(device), 1, holding)
        good.sendall(door.request(1))
        assert good.recv(100).startswith(door.answer)
    assert "Traceback" not in device.log_text(), device.log_text()[-3000:]


def test_the_socket_of_a_killed_process_is_replaced_and_a_file_is_not(device: FaultyDevice) -> None:
    device.kill()
    assert device.socket.is_socket()
    device.start()
    eventually(device.answering_version)
    device.stop()
    device.socket.write_text("precious", "utf-8")
    device.start()
    assert device.end_code() == 1
    assert device.socket.read_text("utf-8") == "precious"
    said = device.log_text().splitlines()[-1]
    assert said.startswith("error: ") and said.endswith("[invalid_configuration]")
    device.socket.unlink()
    device.start()
    eventually(device.answering_version)
