"""A real hub for tests: ``muster hub serve`` as a process on either broker, which can be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from converters.data.dataset import write_dataset
from hub.cli.client import Client
from hub.cli.models import wait_for_training
from hub.home import ADDRESS_FILE, Address, create_home, parse_settings
from hub.settings import Settings
from tests.support.brokers import listens
from tests.support.command_line import muster_here
from tests.support.digits import flattened, registered_part
from tests.support.ports import ReservedPort
from tests.support.waiting import eventually

START_TIMEOUT_S = 60.0
FAST = {
    "rollout_tick_s": 0.1,
    "assignment_resend_s": 1.0,
    "offline_after_s": 10.0,
    "drift_block_predictions": 200,
}


class HubProcess:
    """A hub that runs while the context is open.

    Args:
        home: Its folder, made here.
        broker: Which broker it starts.
        settings: In place of the fast ones.
    """

    def __init__(self, home: Path, *, broker: str, settings: dict[str, Any] | None = None) -> None:
        self.home = home
        self._http, self._mqtt = ReservedPort(), ReservedPort()
        ports = {"http_port": self._http.number, "mqtt_port": self._mqtt.number}
        changed = {"broker": broker, **ports, **FAST, **(settings or {})}
        self.token = create_home(home, parse_settings({**msgspec.structs.asdict(Settings()), **changed}))
        self._process: subprocess.Popen[bytes] | None = None
        self.address = Address("", "", 0, "")
        self._client: Client | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the API is."""
        return self.address.url

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None
        return self._process.pid

    @property
    def client(self) -> Client:
        """A client with the admin's token."""
        if self._client is None:
            self._client = Client(self.address.url, self.token)
        return self._client

    def start(self) -> None:
        """Start the process and wait until it serves; ports stay the same."""
        (self.home / ADDRESS_FILE).unlink(missing_ok=True)
        with (self.home / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hub", "hub", "serve", "--home", str(self.home)],
                stdout=log,
                stderr=log,
            )
        eventually(self._is_up, f"the hub in {self.home} serves", timeout_s=START_TIMEOUT_S)
        self.address = msgspec.json.decode((self.home / ADDRESS_FILE).read_bytes(), type=Address)

    def stop(self) -> None:
        """Stop it as an operator would."""
        if self._client is not None:
            self._client.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30.0)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10.0)
        eventually(lambda: not listens(self.address.mqtt_port), "the broker has ended with its hub")

    def train_and_release(self, model: str, **training: Any) -> int:
        """Train the next version of a model on dataset ``digits``, release it and return its number.

        Args:
            model: Its name.
            training: What the API takes beside the dataset.
        """
        if not self.client.get("/datasets")["items"]:
            path = self.home.with_name("digits.npz")
            write_dataset(path, flattened(registered_part()))
            self.client.upload("/datasets/digits", path)
        version = self.client.post(f"/models/{model}/versions", {"dataset": "digits", **training})
        number: int = wait_for_training(self.client, version, show_progress=False)["version"]
        self.client.post(f"/models/{model}/versions/{number}/release")
        return number

    def muster(self, *arguments: str, check: bool = True) -> str:
        """Run a ``muster`` command in this process and return what it printed.

        Args:
            arguments: Those after ``muster``.
            check: Fail where the command does; else errors are returned too.
        """
        done = muster_here(*arguments, MUSTER_URL=self.url, MUSTER_TOKEN=self.token, COLUMNS="200")
        if check and done.returncode:
            raise AssertionError(f"muster {' '.join(arguments)} failed: {done.stderr}")
        return done.stdout if check else done.stdout + done.stderr

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"The hub has ended:\n{(self.home / 'hub.log').read_text()[-2000:]}")
        return (self.home / ADDRESS_FILE).exists()
