"""Twenty swaps under load on a real device: no request fails, every answer is one version's, memory stays.

Versions differ recognizably: the class probabilities for one sample tell which weights gave them.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import agent
import agent.client
from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_bundles import Bundle, build
from tests.support.agent_device import SAMPLE, Device, UnixConnection
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

SWAPS = 20
PADDING_BYTES = 1024**2
"""Makes every version large enough to be seen if it stays in memory."""
REQUESTS = 10_000
FIRST_SWAPS = LAST_SWAPS = 5
GROWTH_BYTES = 4 * 1024**2
"""By how much the least memory in the last swaps may exceed the most in the first. Ten versions lie between
them, each of which would add its padding if it stayed; the allocator lets the rest go up and down."""


class Seen(NamedTuple):
    """An answer: who says that he gave it, and the probabilities."""

    version: int
    probabilities: tuple[float, ...]


Ask = Callable[[], Seen]


class Load:
    """Clients that ask again and again, each in a thread."""

    def __init__(self) -> None:
        self.answers: list[list[Seen]] = []
        self.failures: list[BaseException] = []
        self._enough = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, connected: AbstractContextManager[Ask], *, pause_s: float = 0.0) -> None:
        """Start a client that pauses after each answer."""
        answers: list[Seen] = []
        self.answers.append(answers)

        def work() -> None:
            try:
                with connected as ask:
                    while not self._enough.is_set():
                        answers.append(ask())
                        if pause_s:
                            self._enough.wait(pause_s)
            except BaseException as error:
                self.failures.append(error)

        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()

    def count(self) -> int:
        """Return how many answers have come."""
        return sum(len(answers) for answers in self.answers)

    def has_seen(self, version: int) -> bool:
        """Tell whether each client's last answer is of a version."""
        return all(answers and answers[-1].version == version for answers in self.answers)

    def stop(self) -> None:
        """End the clients."""
        self._enough.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def over_http(device: Device) -> Iterator[Ask]:
    """Ask over HTTP, on one connection."""
    connection = UnixConnection(device.socket)
    body = msgspec.json.encode(
        {"inputs": [{"name": "pixels", "shape": [1, 4], "datatype": "FP32", "data": SAMPLE}]}
    )

    def ask() -> Seen:
        connection.request("POST", "/v2/models/digits/infer", body)
        response = connection.getresponse()
        answer = msgspec.json.decode(response.read())
        assert response.status == http.client.OK, answer
        return Seen(int(answer["model_version"]), tuple(answer["outputs"][0]["data"]))

    yield ask
    connection.close()


@contextmanager
def over_fast_path(device: Device, *, shared: bool) -> Iterator[Ask]:
    """Ask over the fast path."""
    with agent.client.connect(device.fast_socket) as client:
        model = client.model("digits")
        given = client.shared_array((1, 4), np.float32) if shared else np.empty((1, 4), np.float32)
        given[:] = SAMPLE

        def ask() -> Seen:
            answer = model(given)
            return Seen(answer.version, tuple(answer.outputs["probabilities"].ravel().tolist()))

        yield ask


@contextmanager
def in_process(device: Device) -> Iterator[Ask]:
    """Ask in this process, which goes with what is committed there."""
    with agent.open_model("digits", state=device.state) as model:
        given = np.array([SAMPLE], dtype=np.float32)

        def ask() -> Seen:
            answer = model(given)
            return Seen(answer.version, tuple(answer.outputs["probabilities"].ravel().tolist()))

        yield ask


def expected(version: int) -> NDArray[np.float32]:
    """Return what a version answers to the sample."""
    weights = np.random.default_rng(version).normal(size=(4, 3)).astype(np.float32)
    logits = np.exp(np.array(SAMPLE, dtype=np.float32) @ weights)
    probabilities: NDArray[np.float32] = logits / logits.sum()
    return probabilities


def resident_bytes(process_id: int) -> int:
    """Return how much memory a process holds of its own, without what it maps from files."""
    status = Path(f"/proc/{process_id}/status").read_text("ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@pytest.mark.long
def test_twenty_swaps_under_load(peer: Peer, make_device: MakeDevice) -> None:
    bundles = [build(version, padding_bytes=PADDING_BYTES + version) for version in range(1, SWAPS + 2)]
    peer.release(*bundles)
    device = make_device(trial_s=0.05, telemetry_interval_s=0.5)
    device.start()
    swap_to(peer, device, bundles[0])

    load = Load()
    load.add(over_http(device))
    load.add(over_fast_path(device, shared=False))
    load.add(over_fast_path(device, shared=True))
    inside = Load()  # counted by itself: it needs no agent, so its answers say nothing about the agent's load
    inside.add(in_process(device), pause_s=0.001)
    sizes = []
    try:
        for swap, bundle in enumerate(bundles[1:], start=1):
            swap_to(peer, device, bundle)
            enough = REQUESTS * swap // SWAPS
            eventually(lambda enough=enough: load.count() >= enough)  # type: ignore[misc]
            eventually(partial(load.has_seen, bundle.manifest.version), "each client is answered by it")
            sizes.append(resident_bytes(device.process_id))
        eventually(lambda: inside.answers[0][-1].version == SWAPS + 1)
    finally:
        load.stop()
        inside.stop()

    assert load.failures + inside.failures == []
    assert load.count() >= REQUESTS
    answered = {bundle.manifest.version: expected(bundle.manifest.version) for bundle in bundles}
    for answers in load.answers + inside.answers:
        versions = [seen.version for seen in answers]
        assert versions == sorted(versions), "an old version answered after the new one"
        if answers is inside.answers[0]:  # it looks once a second, and may pass over some
            assert set(versions) <= set(answered)
            assert len(set(versions)) > 2
        else:
            assert set(versions) == set(answered)
        for seen in set(answers):
            assert np.allclose(seen.probabilities, answered[seen.version], atol=1e-5), seen
    assert min(sizes[-LAST_SWAPS:]) - max(sizes[:FIRST_SWAPS]) < GROWTH_BYTES, sizes


def swap_to(peer: Peer, device: Device, bundle: Bundle) -> None:
    """Order a version and wait until it is committed."""
    deployment_id = f"d-{bundle.manifest.version}"
    peer.assign(device.id, (bundle, deployment_id))
    peer.wait_report(deployment_id, S.SUCCEEDED)
