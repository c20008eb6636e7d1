"""The demo keeps its word when things go wrong: it says which step failed, and nothing outlives it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

pytestmark = pytest.mark.thorough


class Demo:
    """The demo with four cameras, its files in a folder of its own, by which its processes can be told."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="d-"))  # short: the cameras' sockets are below it
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hub", "demo", "--devices", "4"],
            env={**os.environ, "TMPDIR": str(self.folder), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def processes(self, word: str = "") -> list[int]:
        """Return the processes whose command names the demo's folder and the word."""
        found = []
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                text = command.read_bytes().decode(errors="replace")
                if str(self.folder) in text and word in text:
                    found.append(int(command.parent.name))
        return found

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def demo() -> Iterator[Demo]:
    """A demo that has begun."""
    begun = Demo()
    yield begun
    begun.close()


@pytest.mark.long
def test_a_failed_step_is_named_and_the_exit_code_is_1(demo: Demo) -> None:
    eventually(lambda: len(demo.processes("camera-04")) >= 2, "the agents run", timeout_s=60)
    for pid in demo.processes("serve"):
        os.kill(pid, signal.SIGKILL)
    output, _ = demo.process.communicate(timeout=90)
    assert demo.process.returncode == 1
    assert re.search(r"Step [34] \(.*\) failed: hub has ended", output), output
    assert "Traceback" not in output.split("Its last words")[0]
    eventually(lambda: not demo.processes(), "nothing outlives the demo")


@pytest.mark.parametrize("end", [signal.SIGKILL, *([signal.SIGINT, signal.SIGTERM] if ALL else [])])
def test_nothing_outlives_the_demo(demo: Demo, end: signal.Signals) -> None:
    eventually(lambda: len(demo.processes("camera-04")) >= 2, "the agents run", timeout_s=60)
    demo.process.send_signal(end)
    demo.process.communicate(timeout=60)
    assert demo.process.returncode != 0
    eventually(lambda: not demo.processes(), "nothing outlives the demo")
