"""What the demo's story is played on: the hub, the agents, the cameras, and the client that asks the hub."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from fleet.protocol.errors import HubUnavailable
from hub.alerts.settings import ALERTS_FILE
from hub.cli.client import Client
from hub.demo.cameras import Camera
from hub.demo.images import Digits
from hub.demo.processes import Process, run_command
from hub.home import ADDRESS_FILE, Address
from hub.settings import read_settings, write_settings

MODEL = "meter-digits"
POLL_S = 0.1

AGENT_SETTINGS = {
    # A real fleet has minutes where the demo has seconds; nothing else differs.
    "heartbeat_interval_s": 1,
    "telemetry_interval_s": 0.5,
    "trial_s": 1,
    "resend_interval_s": 2,
    "backoff_maximum_s": 2,
}
HUB_SETTINGS = {"rollout_tick_s": 0.3, "assignment_resend_s": 2.0, "offline_after_s": 15.0}
ALERTS = "[rules]\nlook_interval_s = 0.3\ngroup_wait_s = 0.5\n"


class StepFailed(Exception):
    """A step of the story is not what the devices reported."""


class Stage:
    """Everything that runs during the demo.

    Args:
        folder: Where all state is kept.
        digits: What the cameras see.
        device_count: How many cameras there are.
        seed: Fixes every random choice.
    """

    def __init__(self, folder: Path, digits: Digits, device_count: int, seed: int) -> None:
        self.folder = folder
        self.digits = digits
        self.seed = seed
        self.device_ids = [f"camera-{number:02d}" for number in range(1, device_count + 1)]
        self.cameras: dict[str, Camera] = {}
        self.address: Address | None = None
        self._token = ""
        self._client: Client | None = None
        self._processes: list[Process] = []
        self._shooting: list[asyncio.Task[None]] = []

    @property
    def client(self) -> Client:
        """A client of the hub's API, with the admin's token."""
        assert self._client is not None
        return self._client

    async def start_hub(self) -> None:
        """Initialise the hub and start it.

        Raises:
            StepFailed: It does not come up.
        """
        home = self.folder / "hub"
        printed = await asyncio.to_thread(
            self.command,
            *(
                "hub",
                "init",
                "--home",
                str(home),
                "--broker",
                "embedded",
                "--http-port",
                "0",
                "--mqtt-port",
                "0",
            ),
        )
        self._token = printed.split()[-1]
        write_settings(home, msgspec.structs.replace(read_settings(home), **HUB_SETTINGS))
        (home / ALERTS_FILE).write_text(ALERTS)
        self._start("hub", ["hub", "hub", "serve", "--home", str(home)])
        await self.until("the hub answers", (home / ADDRESS_FILE).exists, timeout_s=30.0)
        self.address = msgspec.json.decode((home / ADDRESS_FILE).read_bytes(), type=Address)
        self._client = Client(self.address.url, self._token)

    async def start_agents(self) -> None:
        """Enrol and start one agent for each camera, a few at a time, and let the cameras shoot."""
        gate = asyncio.Semaphore(2)

        async def start(number: int, device_id: str) -> None:
            async with gate:
                await asyncio.to_thread(self._enrol, device_id)
            state = self.folder / device_id
            self._start(device_id, ["agent", "run", "--state", str(state)])
            camera = Camera(state / "agent.sock", MODEL, self.digits.field, self.seed * 1000 + number)
            self.cameras[device_id] = camera
            self._shooting.append(asyncio.get_running_loop().create_task(camera.run()))

        await asyncio.gather(*(start(number, name) for number, name in enumerate(self.device_ids)))

    def command(self, *arguments: str) -> str:
        """Run a ``muster`` command as an operator would and return what it printed."""
        environment = {"MUSTER_TOKEN": self._token}
        if self.address is not None:
            environment["MUSTER_URL"] = self.address.url
        return run_command(["hub", *arguments], environment=environment, timeout_s=60.0)

    async def ask(self, path: str, **parameters: Any) -> Any:
        """GET a path of the hub's API."""
        return await asyncio.to_thread(self.client.get, path, **parameters)

    async def tell(self, path: str, body: Any = None) -> Any:
        """POST to a path of the hub's API."""
        return await asyncio.to_thread(self.client.post, path, body)

    def metrics(self) -> str:
        """Return the hub's metrics as Prometheus would read them."""
        assert self.address is not None
        return httpx.get(f"{self.address.url}/metrics").raise_for_status().text

    async def until(self, what: str, holds: Callable[[], Any], *, timeout_s: float) -> Any:
        """Wait until a condition holds and return what it returned; the condition may ask the hub.

        Raises:
            StepFailed: It does not hold in time, or a process has ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                answer = await asyncio.to_thread(holds)
            except HubUnavailable:
                answer = None
            if answer:
                return answer
            self.check()
            if time.monotonic() > deadline_s:
                raise StepFailed(f"After {timeout_s:g} s it is still not so that {what}.")
            await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """Check that everything still runs.

        Raises:
            StepFailed: A process has ended, or a camera.
        """
        for process in self._processes:
            if process.has_ended:
                raise StepFailed(f"{process.name} has ended. Its last words:\n{process.last_words()}")
        for task in self._shooting:
            if task.done():
                task.result()  # raises what ended the camera

    @property
    def token(self) -> str:
        """The admin's token."""
        return self._token

    async def close(self) -> None:
        """Stop cameras, agents and hub, in this order."""
        if self._client is not None:
            self._client.close()
        for task in self._shooting:
            task.cancel()
        await asyncio.gather(*self._shooting, return_exceptions=True)
        for group in (self._processes[1:], self._processes[:1]):
            for process in group:
                process.let_go()
            for process in group:
                await asyncio.to_thread(process.wait)

    def _enrol(self, device_id: str) -> None:
        token = self.client.post("/enrolment-tokens", {})["token"]
        assert self.address is not None
        settings = [f"--setting={name}={value}" for name, value in AGENT_SETTINGS.items()]
        command = ["agent", "enroll", "--hub", self.address.url, "--id", device_id]
        command += ["--attribute", "kind=camera", "--state", str(self.folder / device_id)]
        run_command(
            [*command, *settings],
            environment={"MUSTER_ENROLMENT_TOKEN": token},
            timeout_s=60.0,
        )

    def _start(self, name: str, arguments: list[str]) -> None:
        self._processes.append(Process(name, arguments, log=self.folder / f"{name}.log"))
