"""A plain Mosquitto without the hub's limits and accounts, which a test can stop and start again."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Protocol

from tests.support.brokers import HOST, listens, require_mosquitto
from tests.support.ports import ReservedPort
from tests.support.waiting import eventually


class AnyBroker(Protocol):
    """What the tests' hub needs of a broker."""

    passwords: dict[str, str]

    @property
    def port(self) -> int:
        """Where it listens."""

    def apply_accounts(self) -> None:
        """Make the accounts those in ``passwords``."""


class _AnyPassword(dict[str, str]):
    def __missing__(self, username: str) -> str:
        return f"password-of-{username}"


class OpenBroker:
    """Mosquitto with its defaults, open to everybody.

    Args:
        folder: Where its settings go.
    """

    def __init__(self, folder: Path) -> None:
        self.passwords: dict[str, str] = _AnyPassword()
        self._reserved = ReservedPort()
        self._settings = folder / "open.conf"
        self._settings.write_text(f"listener {self.port} {HOST}\nallow_anonymous true\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def port(self) -> int:
        """Where it listens, also after it was started again."""
        return self._reserved.number

    def apply_accounts(self) -> None:
        """Do nothing: everybody may connect."""

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [str(require_mosquitto()), "-c", str(self._settings)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        eventually(lambda: listens(self.port), "Mosquitto listens")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
