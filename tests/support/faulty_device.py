"""A device whose storage and clock fail as a test plans it: see ``tests/support/faulty_agent.py``."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.agent_device import Device, Inviter
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("faulty_agent.py")
FOR_EVER = 10**9


class Operation(NamedTuple):
    """One change of storage.

    Attributes:
        number: Since the plan was made.
        outcome: ``done``, or the name of the error number that it failed with.
        name: The call.
        path: Relative to the state folder.
    """

    number: int
    outcome: str
    name: str
    path: str


class FaultyDevice(Device):
    """An enrolled device with a machine that fails.

    Args:
        peer: Its hub.
        folder: Where its state goes.
        device_id: Its name.
        settings: Settings in place of the tests' own.
    """

    def __init__(self, peer: Inviter, folder: Path, device_id: str, **settings: Any) -> None:
        super().__init__(peer, folder, device_id, **settings)
        self._faults = folder / f"{device_id}.faults"
        self._faults.mkdir()
        self._plans = count(1)
        self.plan("none")
        self.set_clock(0.0)

    def plan(self, *words: object) -> None:
        """Say what happens at which operation, from now on; counting begins again."""
        self._plan = next(self._plans)
        self._tell("plan", " ".join(map(str, (self._plan, *words))))

    def set_clock(self, offset_s: float) -> None:
        """Step the wall clock so that it is off by so much."""
        self._tell("clock", str(offset_s))

    def start(self) -> None:
        """Start the agent."""
        command = [sys.executable, "-P", "-W", "error", str(PROGRAM), str(self._faults), str(self.state)]
        self._process = subprocess.Popen(
            [*command, "run", "--state", str(self.state)],
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def operations(self) -> list[Operation]:
        """Return what was counted since the plan was made."""
        path = self._faults / "operations"
        written = path.read_text("utf-8") if path.exists() else ""
        found = []
        for line in written.rpartition("\n")[0].splitlines():
            plan, number, outcome, name, where = line.split(" ", 4)
            if int(plan) == self._plan:
                found.append(Operation(int(number), outcome, name, where))
        return found

    def was_killed(self) -> bool:
        """Whether the process met its end by the plan."""
        return self._process is not None and self._process.poll() == -signal.SIGKILL

    def wait_killed(self) -> None:
        """Wait until the process met its end by the plan."""
        eventually(self.was_killed, "the process is killed")

    def end_code(self) -> int:
        """Return the exit code, when the agent has ended by itself."""
        assert self._process is not None
        return self._process.wait(20)

    def limit_open_files(self, limit: int) -> None:
        """Let the running agent have so many files and sockets open."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def open_files(self) -> int:
        """Return how many files and sockets the running agent has open."""
        assert self._process is not None
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def log_text(self) -> str:
        """Return what the agent wrote to standard error since the device was made."""
        return self.state.with_name(f"{self.id}.log").read_text("utf-8")

    def _tell(self, name: str, text: str) -> None:
        with (self._faults / name).open("r+b" if (self._faults / name).exists() else "wb", 0) as stream:
            stream.write(text.ljust(100).encode())  # in place and at once: the agent has the file open


def some(cases: list[Any], step: int) -> list[Any]:
    """Return every case in `make test-faults`, else every so many."""
    return cases if ALL else cases[::step]
