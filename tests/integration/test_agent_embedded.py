"""Models embedded in this process, from the state folder of a real agent in another."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agent
from agent.client.link import FastLink
from agent.life.store import LifeStore
from agent.serving.fast_frames import Kind
from agent.settings import read_given, write_settings
from agent.telemetry.reception import pack_window
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.errors import (
    InvalidConfiguration,
    InvalidInput,
    InvalidMessage,
    InvalidName,
    MemoryBudgetExceeded,
    MusterError,
    NotFound,
    StorageCorrupt,
    Unavailable,
)
from fleet.protocol.records import TelemetryWindow
from tests.support.agent_bundles import Bundle, build, build_tabular, expected_class
from tests.support.agent_device import SAMPLE, Device
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually

X = np.array([SAMPLE], dtype=np.float32)


def commit(peer: Peer, device: Device, *bundles: Bundle) -> None:
    """Let the device commit versions of different models."""
    peer.release(*bundles)
    orders = [(bundle, f"d-{bundle.manifest.model}-{bundle.manifest.version}") for bundle in bundles]
    peer.assign(device.id, *orders)
    for _, deployment_id in orders:
        peer.wait_report(deployment_id, S.SUCCEEDED)


def reported(peer: Peer, count: Callable[[TelemetryWindow], int]) -> int:
    return sum(count(window) for window in peer.windows())


def test_it_answers_here_and_the_hub_hears_of_it(
    peer: Peer, make_device: MakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make_device()
    device.start()
    commit(peer, device, build(1), build_tabular())
    monkeypatch.setenv("MUSTER_AGENT_STATE", str(device.state))
    with agent.open_model("digits") as model:
        answers = [model(X), model({"pixels": X}), model([SAMPLE, SAMPLE])]
        truth = expected_class(1, SAMPLE)
        for answer in answers:
            assert answer.version == model.version == 1
            assert set(answer.outputs["probabilities"].argmax(axis=1)) == {truth}
        assert model.feedback(answers[2].prediction_id, [truth, truth]) == (2, 2)
        assert model.feedback(answers[0].prediction_id, (truth + 1) % 3) == (1, 0)
        with pytest.raises(NotFound):
            model.feedback(answers[0].prediction_id, truth)
    eventually(lambda: reported(peer, lambda window: window.predictions) == 4)
    eventually(lambda: reported(peer, lambda window: window.labelled) == 3, "the labels come, perhaps later")
    assert reported(peer, lambda window: window.correct) == 2
    assert reported(peer, lambda window: sum(window.latency.values())) == 3
    for window in peer.windows():
        if window.predictions:  # else it tells of labels alone
            assert {counts.total for counts in window.profile.values()} == {window.predictions}
    name = build_tabular().manifest.model
    with agent.open_model(name, state=device.state) as table:
        numbers = np.array([[np.nan, 1.0]], dtype=np.float32)
        assert table({"numbers": numbers, "city": [["oslo"]]}).version == 1
        with pytest.raises(InvalidInput, match="by name"):
            table(numbers)


@pytest.mark.parametrize(
    "inputs",
    [
        X.astype(np.float64),
        X[0],
        X[:, :3],
        X[:0],
        X * np.nan,
        X.astype(">f4"),
        {"colours": X},
        {"pixels": X, "colours": X},
        {},
        [["a", "b", "c", "d"]],
        [[1.0], [1.0, 2.0]],
        np.array([[None] * 4], dtype=object),
    ],
    ids=lambda given: str(type(given).__name__),
)
def test_what_the_model_does_not_take_is_refused_as_by_the_agent(committed: Device, inputs: Any) -> None:
    with agent.open_model("digits", state=committed.state) as model:
        with pytest.raises(InvalidInput):
            model(inputs)
        assert model(X).version == 1


@pytest.fixture(name="committed", scope="module")
def committed_fixture(broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A device with a committed version whose agent does not run any more."""
    peer = Peer(broker)
    device = Device(peer, tmp_path_factory.mktemp("committed"), "committed")
    device.start()
    commit(peer, device, build(1))
    device.stop()
    peer.close()  # two hubs on one broker would answer each other's devices
    yield device
    device.close()


def test_what_is_not_there_is_said_with_an_error_of_ours(committed: Device, tmp_path: Path) -> None:
    for name, version, state, error in (
        ("digits", None, tmp_path, InvalidConfiguration),
        ("digits", None, tmp_path / "nothing", InvalidConfiguration),
        ("../digits", None, committed.state, InvalidName),
        ("letters", None, committed.state, NotFound),
        ("digits", 2, committed.state, NotFound),
    ):
        with pytest.raises(error):
            agent.open_model(name, version=version, state=state)
    model = agent.open_model("digits", version=1, state=committed.state)
    model.close()
    model.close()
    with pytest.raises(Unavailable):
        model(X)


def test_only_what_fits_and_is_whole_is_loaded(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    device.start()
    commit(peer, device, build(1))
    device.stop()
    given = read_given(device.state)
    write_settings(device.state, {**given, "model_memory_limit_bytes": 1024})
    with pytest.raises(MemoryBudgetExceeded):
        agent.open_model("digits", state=device.state)
    write_settings(device.state, given)
    (model_file,) = (device.state / "models" / "digits").glob("*/*.onnx")
    data = bytearray(model_file.read_bytes())
    data[-1] ^= 1
    model_file.write_bytes(bytes(data))
    with pytest.raises(StorageCorrupt):
        agent.open_model("digits", state=device.state)


def test_it_goes_with_what_is_committed_and_a_pin_stays(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device()
    device.start()
    first, second, third = build(1), build(2), build(3)
    commit(peer, device, first)
    failures: list[BaseException] = []
    versions: list[int] = []
    enough = threading.Event()
    with (
        agent.open_model("digits", state=device.state) as model,
        agent.open_model("digits", version=1, state=device.state) as pinned,
    ):

        def ask() -> None:
            try:
                while not enough.is_set():
                    versions.append(model(X).version)
            except MusterError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            commit(peer, device, second)
            eventually(lambda: versions[-1] == 2)
            device.restart_with(trial_s=600.0)
            peer.release(third)
            peer.assign(device.id, (third, "d-3"))
            device.wait_version(3)
            assert LifeStore(device.state / "life").read("digits").life.phase == "TRIAL"
            asked = len(versions)
            eventually(lambda: len(versions) > asked + 1000)
            assert (model.version, pinned.version) == (2, 1), "what is on trial answers in the agent alone"
            peer.assign(device.id)
            eventually(lambda: failures)
        finally:
            enough.set()
            asking.join()
        assert isinstance(failures[0], NotFound), "the device has the model no more"
        assert versions == sorted(versions)
        assert set(versions) == {1, 2}
        assert pinned(X).version == 1


def test_what_is_not_committed_yet_is_not_ready(peer: Peer, make_device: MakeDevice) -> None:
    device = make_device(trial_s=600.0)
    device.start()
    bundle = build(1)
    peer.release(bundle)
    peer.assign(device.id, (bundle, "d-1"))
    device.wait_version(1)
    with pytest.raises(Unavailable, match="TRIAL"):
        agent.open_model("digits", state=device.state)


def test_what_was_counted_without_an_agent_is_handed_over_later_and_once(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    device.start()
    bundle = build(1)
    commit(peer, device, bundle)
    with agent.open_model("digits", state=device.state) as model:
        device.kill()
        for _ in range(7):
            model(X)
        eventually(lambda: model._reporter.waiting)
        device.start()
        eventually(lambda: reported(peer, lambda window: window.predictions) == 7)
    window = TelemetryWindow(
        1.0, 2.0, "digits", 1, bundle.sha256, bundle.variant.name, predictions=5, latency={}
    )
    data = pack_window(secrets.token_bytes(16), window)
    for _ in range(2):
        hand_over(device, data)
        hand_over(device, data)
        device.kill()
        device.start()
        device.wait_version(1)
    hand_over(device, pack_window(secrets.token_bytes(16), window))
    peer.wait_settled()
    # What the waits asked for has latencies, as the seven have; what was handed over has none.
    assert reported(peer, lambda window: window.predictions - sum(window.latency.values())) == 5 + 5


def hand_over(device: Device, data: bytes) -> None:
    link = FastLink(device.fast_socket, 10.0)
    try:
        link.exchange(Kind.WINDOW, parts=[data], data_bytes=len(data))
    finally:
        link.close()


def test_a_window_that_the_agent_could_not_have_counted_is_refused(
    peer: Peer, make_device: MakeDevice
) -> None:
    device = make_device()
    device.start()
    bundle = build(1)
    commit(peer, device, bundle)

    def made(**changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "started_at_s": 1.0,
            "ended_at_s": 2.0,
            "model": "digits",
            "version": 1,
            "manifest_sha256": bundle.sha256,
            "variant": bundle.variant.name,
            "predictions": 1,
        }
        return pack_window(bytes(16), TelemetryWindow(**{**fields, **changes}))

    for data, error in (
        (made(version=2), NotFound),
        (made(model="letters"), NotFound),
        (made(manifest_sha256="0" * 64), NotFound),
        (made(variant="other"), NotFound),
        (made(latency={3: 2}), InvalidMessage),
        (made(correct=1), InvalidMessage),
        (made(predictions=10**9), InvalidMessage),
        (made(ended_at_s=0.5), InvalidMessage),
        (made()[:40], InvalidMessage),
        (b"", InvalidMessage),
        (b"\xff" * 200, InvalidMessage),
    ):
        with pytest.raises(error):
            hand_over(device, data)
    device.stop()
    assert reported(peer, lambda window: window.predictions) == 0
