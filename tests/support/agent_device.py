"""A real agent for tests: its own process, its own state folder, its own local API."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from agent.enroll import enroll
from agent.settings import read_given, write_settings
from tests.support.agent_bundles import MODEL
from tests.support.processes import end
from tests.support.waiting import eventually

FAST: dict[str, Any] = {
    "heartbeat_interval_s": 0.5,
    "telemetry_interval_s": 0.3,
    "trial_s": 0.2,
    "resend_interval_s": 0.5,
    "hello_interval_s": 5.0,  # what a broker loses is repaired within the time that tests wait
    "fetch_timeout_s": 2.0,
    "delivery_timeout_s": 0.5,
    "delivery_attempts": 20,  # a busy machine can hold a process up for seconds
    "backoff_minimum_s": 0.1,
    "backoff_maximum_s": 0.5,
    "reserve_free_bytes": 0,
}
"""Settings that make tests quick."""

SAMPLE = [0.9, 0.1, 0.4, 0.2]


class Reply(NamedTuple):
    """An answer of the local API."""

    status: int
    body: Any


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


class Inviter(Protocol):
    """Whoever invites devices: a test's peer, or a real hub."""

    @property
    def url(self) -> str:
        """Where to enrol."""
        ...

    @property
    def token(self) -> str:
        """A token that was not used yet."""
        ...


class Device:
    """An enrolled device.

    Args:
        peer: Its hub.
        folder: Where its state goes.
        device_id: Its name.
        settings: Settings in place of `FAST`'s.
    """

    def __init__(self, peer: Inviter, folder: Path, device_id: str, **settings: Any) -> None:
        self.id = device_id
        self.state = folder / device_id
        # A test's folder can have a longer path than a socket may have.
        self.socket = Path(tempfile.mkdtemp(prefix="agent-")) / "s"
        self.fast_socket = self.socket.with_name("s-fast")
        self._log = (folder / f"{device_id}.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self.prefix: tuple[str, ...] = ()
        """Words before the agent's command; it must end as the agent's own process."""
        enroll(
            self.state,
            hub_url=peer.url,
            device_id=device_id,
            token_text=peer.token,
            attributes={"site": "lab"},
            settings={**FAST, "socket_path": str(self.socket), **settings},
        )

    def start(self) -> None:
        """Start the agent."""
        agent = (sys.executable, "-W", "error", "-m", "agent", "run", "--state", str(self.state))
        command = [*self.prefix, *agent]
        self._process = subprocess.Popen(command, stderr=self._log, env=_environment())

    @property
    def process_id(self) -> int:
        """The agent's process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End the agent as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> float:
        """End the agent in an orderly way; return how long that took it, in seconds."""
        assert self._process is not None
        took_s = end(self._process, signal.SIGTERM)
        assert self._process.returncode == 0
        return took_s

    def restart_with(self, **settings: Any) -> None:
        """Start the agent again with other values of some settings."""
        self.stop()
        write_settings(self.state, {**read_given(self.state), **settings})
        self.start()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End whatever runs."""
        if self.is_running():
            self.kill()
        self._log.close()
        shutil.rmtree(self.socket.parent)

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """Make one request to the local API."""
        connection = UnixConnection(self.socket)
        try:
            data = None if body is None else msgspec.json.encode(body)
            connection.request(method, path, data)
            response = connection.getresponse()
            return Reply(response.status, msgspec.json.decode(response.read()))
        finally:
            connection.close()

    def infer(self, *samples: list[float], model: str = MODEL) -> Reply:
        """Ask for predictions of samples."""
        tensor = {
            "name": "pixels",
            "shape": [len(samples), len(samples[0])],
            "datatype": "FP32",
            "data": [value for sample in samples for value in sample],
        }
        return self.call("POST", f"/v2/models/{model}/infer", {"inputs": [tensor]})

    def answering_version(self) -> str | None:
        """Return the version that answers a real request, None if none does."""
        try:
            reply = self.infer(SAMPLE)
        except OSError:
            return None
        return str(reply.body["model_version"]) if reply.status == 200 else None

    def wait_version(self, version: int) -> None:
        """Wait until a version answers."""
        eventually(lambda: self.answering_version() == str(version))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
