"""The agent under a service manager: readiness, signs of life, and its end within a second."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.telemetry.outbox import Outbox
from fleet.protocol.chunks import CHUNK_SIZE_BYTES
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.records import TelemetryWindow
from tests.support.agent_bundles import build
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    mosquitto_fixture,
    peer_fixture,
    settle,
)
from tests.support.agent_peer import Peer
from tests.support.agent_service import Service, ServiceManager, build_working
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

STOP_S = 1.0
NEGATIVE = [-1.0, -1.0, -1.0, -1.0]
WATCHDOG_S = 0.4
MakeService = Callable[..., Service]
_numbers = count(1)


@pytest.fixture(name="make_service")
def make_service_fixture(peer: Peer, tmp_path: Path) -> Iterator[MakeService]:
    services: list[Service] = []

    def make(**settings: Any) -> Service:
        services.append(Service(peer, tmp_path, f"service-{next(_numbers)}", **settings))
        return services[-1]

    yield make
    for service in services:
        service.close()


KINDS_OF_ADDRESS = ["path", "abstract"]


@pytest.fixture(name="manager", params=KINDS_OF_ADDRESS if ALL else ["path"])
def manager_fixture(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServiceManager]:
    """A manager with either kind of address, which wants signs of life."""
    name = f"muster-test-{os.getpid()}-{next(_numbers)}"  # all processes of the machine share these names
    manager = ServiceManager(f"@{name}" if request.param == "abstract" else str(tmp_path / "n"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
    yield manager
    manager.close()


def ask(service: Service, sample: list[float]) -> socket.socket:
    """Send one request and return the connection before the answer."""
    tensor = {"name": "pixels", "shape": [1, 4], "datatype": "FP32", "data": sample}
    body = msgspec.json.encode({"inputs": [tensor]})
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(service.socket))
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def status_of(connection: socket.socket) -> int:
    """Return the status of the answer."""
    with connection:
        response = HTTPResponse(connection)
        response.begin()
        response.read()
        return response.status


@pytest.mark.parametrize("manager", KINDS_OF_ADDRESS, indirect=True)
def test_the_manager_is_told_of_start_life_and_end(
    manager: ServiceManager, make_service: MakeService
) -> None:
    service = make_service()
    service.start()
    manager.wait("READY=1")
    assert service.call("GET", "/v2/health/live").status == 200, "ready means that the local API answers"
    eventually(lambda: manager.signs_of_life() >= 3, "signs of life come")
    eventually(
        lambda: (
            f"STATUS={service.id}: 0 of 0 model(s) answering, connected to the hub's broker."
            in manager.lines()
        ),
        "the status follows what happens",
    )
    assert "STOPPING=1" not in manager.lines()
    code, _ = service.end(signal.SIGTERM)
    assert code == 0
    assert "STOPPING=1" in manager.lines()
    assert manager.lines().count("READY=1") == 1


@pytest.mark.thorough
def test_a_blocked_event_loop_gives_no_sign_of_life(
    manager: ServiceManager, make_service: MakeService
) -> None:
    service = make_service()
    service.start()
    eventually(lambda: manager.signs_of_life() >= 2, "signs of life come")
    service.block()
    blocked = threading.Event()
    seen = -1
    while seen != manager.signs_of_life():  # the last one can be on its way
        seen = manager.signs_of_life()
        blocked.wait(4 * WATCHDOG_S)
    assert service.is_running()
    code, _ = service.end(signal.SIGABRT)  # what the manager does then
    assert code == -signal.SIGABRT


@pytest.mark.thorough
def test_a_model_that_never_answers_is_an_incident_and_no_reason_to_restart(
    manager: ServiceManager, peer: Peer, make_service: MakeService
) -> None:
    service = make_service(inference_timeout_s=0.5)
    settle(peer, service, build_working(1))
    assert service.infer(NEGATIVE).status == 500
    assert "answered no request" in peer.wait_incident("inference_failed").cause.detail
    seen = manager.signs_of_life()
    eventually(lambda: manager.signs_of_life() >= seen + 3, "signs of life go on")
    assert service.call("GET", "/v2/health/live").status == 200
    code, took_s = service.end(signal.SIGTERM)
    assert (code, took_s < STOP_S) == (0, True), took_s


@pytest.mark.parametrize("manager", ["path"], indirect=True)
@pytest.mark.thorough
def test_requests_under_way_are_answered_and_counted_before_the_end(
    manager: ServiceManager, peer: Peer, make_service: MakeService
) -> None:
    service = make_service(telemetry_interval_s=600)
    service.become_holdable()
    settle(peer, service, build(1))
    peer.away()
    with service.held_models():
        connections = [ask(service, SAMPLE) for _ in range(5)]
        assert service.call("GET", "/v2/health/live").status == 200  # it came last, so all have been read
        service.begin_end()
        manager.wait("STOPPING=1")
    assert [status_of(connection) for connection in connections] == [200] * 5
    assert service.wait_ended() == 0
    assert not service.socket.exists()
    outbox = Outbox(service.state / "outbox.sqlite", 2**20)
    bodies = [outbox.record(entry).body for entry in outbox.take(100, beside=set())]
    outbox.close()
    assert sum(body.predictions for body in bodies if isinstance(body, TelemetryWindow)) == 5


def test_it_ends_in_a_second_with_a_model_stuck_in_native_code(peer: Peer, make_service: MakeService) -> None:
    service = make_service()
    settle(peer, service, build_working(1))
    with ask(service, NEGATIVE):
        # Its thread is taken: another request gets no answer either, and the agent has read both.
        with ask(service, SAMPLE) as second:
            second.settimeout(0.5)
            with pytest.raises(TimeoutError):
                second.recv(1)
        code, took_s = service.end(signal.SIGTERM)
    assert (code, took_s < STOP_S) == (0, True), took_s
    assert not service.socket.exists()


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_an_end_that_is_held_up_is_bounded(
    manager: ServiceManager, peer: Peer, make_service: MakeService
) -> None:
    service = make_service()
    service.become_patient()
    settle(peer, service, build_working(1))
    with ask(service, NEGATIVE):
        seen = manager.signs_of_life()
        eventually(lambda: manager.signs_of_life() > seen + 1, "the request was read")
        service.begin_end()
        manager.wait("STOPPING=1")
        service.block()  # while it waits for the request's answer
        assert service.wait_ended() == 1


def test_it_ends_in_a_second_while_a_download_and_a_trial_run(peer: Peer, make_service: MakeService) -> None:
    service = make_service(trial_s=60)
    one, other = build(1), build(2, model="other", padding_bytes=9 * CHUNK_SIZE_BYTES)
    peer.alter_chunk = lambda sha256, number, data: None if sha256 == other.model_blob and number else data
    peer.release(one, other)
    service.start()
    peer.assign(service.id, (one, "d-1"), (other, "d-2"))
    peer.wait_report("d-1", S.TRIAL)
    journal = service.state / "blobs" / f"{other.model_blob}.journal"
    eventually(lambda: journal.exists() and journal.stat().st_size > 0, "the download has begun")
    code, took_s = service.end(signal.SIGTERM)
    assert (code, took_s < STOP_S) == (0, True), took_s
    peer.alter_chunk = lambda _sha, _number, data: data
    service.start()
    peer.wait_report("d-2", S.TRIAL)
    assert not any(report.cause for report in peer.reports("d-1")), "an orderly end is no crash of the trial"


@pytest.mark.parametrize(("access", "mode"), [("account", 0o600), ("group", 0o660)])
def test_the_sockets_are_for_the_account_or_for_its_group(
    make_service: MakeService, access: str, mode: int
) -> None:
    service = make_service(socket_access=access)
    service.start()
    for path in (service.socket, service.fast_socket):
        eventually(lambda path=path: path.exists() and path.stat().st_mode & 0o777 == mode)  # type: ignore[misc]
    assert service.call("GET", "/v2/health/live").status == 200


def test_its_log_is_one_object_a_line(peer: Peer, make_service: MakeService) -> None:
    service = make_service(log_level="debug")
    settle(peer, service, build(1))
    service.end(signal.SIGTERM)
    entries = service.log_entries()
    assert entries
    assert all(entry.keys() == {"time", "level", "logger", "message"} for entry in entries)
    assert {entry["level"] for entry in entries} >= {"debug", "info"}
