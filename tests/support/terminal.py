"""A person at a terminal: a ``muster`` command in a pseudo-terminal, what it shows and what is typed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

from hub.cli.client import Client
from tests.support.hub import HubProcess
from tests.support.waiting import eventually


def environment(hub: HubProcess, client: Client) -> dict[str, str]:
    """Return what a ``muster`` process of a person needs."""
    token = client._http.headers["Authorization"].removeprefix("Bearer ")
    return dict(os.environ) | {
        "MUSTER_URL": hub.url,
        "MUSTER_TOKEN": token,
        "COLUMNS": "160",
        "TERM": "xterm",
    }


class Terminal:
    """A ``muster`` command of a person who sits at a terminal."""

    def __init__(self, hub: HubProcess, client: Client, *arguments: str) -> None:
        self._end, inner = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hub", *arguments],
            env=environment(hub, client),
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        self.shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def shows(self, text: str) -> None:
        """Wait until a text was shown."""
        eventually(lambda: text.encode() in self.shown, f"{text!r} is shown", timeout_s=30.0)

    def types(self, text: str) -> None:
        """Type a line."""
        os.write(self._end, text.encode() + b"\n")

    def ended(self) -> tuple[int, str]:
        """Wait for the end, and return the exit code and all that was shown."""
        code = self.process.wait(30.0)
        self._reader.join(10.0)
        os.close(self._end)
        return code, self.shown.decode()

    def _read(self) -> None:
        try:
            while part := os.read(self._end, 4096):
                self.shown += part
        except OSError:
            return  # the other end is closed
