"""Real brokers for tests: each kind started on a free port, as the hub starts it.

A missing Mosquitto is a failure in CI; on a person's machine its tests are left out, and the end says so.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fleet.protocol.topics import HUB_ACCOUNT
from hub.broker.accounts import hash_password, new_password
from hub.broker.kinds import Kind
from hub.broker.mosquitto import find_mosquitto
from hub.broker.process import Broker, start_broker
from tests.support.needed import leave_out
from tests.support.ports import ReservedPort

HOST = "127.0.0.1"
MOSQUITTO_IS_MISSING = "Mosquitto is missing, and these tests need it. Get it with: apt-get install mosquitto"
_T = TypeVar("_T")


def require_mosquitto() -> Path:
    """Return the installed Mosquitto.

    Without one, the test fails in CI. On a person's machine it is skipped, and the end of the run says so.
    """
    program = find_mosquitto()
    if program is None:
        leave_out(MOSQUITTO_IS_MISSING)
    return program


def listens(port: int) -> bool:
    """Tell whether a process listens on a TCP port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


class RunningBroker:
    """A broker that runs in the background of a test.

    Attributes:
        kind: Which one.
        broker: The hub's handle on it.
        passwords: Password by username; the hub's account is there from the start.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        if kind == "mosquitto":
            require_mosquitto()
        self.kind: Kind = kind
        self.passwords = {HUB_ACCOUNT: new_password()}
        self._known_hashes: dict[str, str] = {}
        self._reserved = ReservedPort()  # tests stop a broker, and start another one in its place
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broker", daemon=True)
        self._thread.start()
        try:
            self.broker: Broker = self._run(
                start_broker(kind, folder, HOST, self._reserved.number, self.hashes())
            )
        except BaseException:
            self._end_loop()
            raise

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.broker.port

    def new_device(self) -> str:
        """Make an account with a name of its own; return the name."""
        device_id = f"cam-{next(self._numbers)}"
        self.passwords[device_id] = new_password()
        self.apply_accounts()
        return device_id

    def apply_accounts(self) -> None:
        """Make the broker's accounts those in `passwords`."""
        self._run(self.broker.update_accounts(self.hashes()))

    def stop(self) -> None:
        """End the broker."""
        self._run(self.broker.stop())
        self._end_loop()

    def hashes(self) -> dict[str, str]:
        """Return each account's hash, the same as before unless it is new: a new hash is a new password."""
        for username, password in self.passwords.items():
            if username not in self._known_hashes:
                self._known_hashes[username] = hash_password(password)
        return {username: self._known_hashes[username] for username in self.passwords}

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def running_broker(kind: Kind, folder: Path) -> Iterator[RunningBroker]:
    """Run a broker for the time of a ``with`` block.

    Args:
        kind: Which one.
        folder: Where it keeps its files.
    """
    broker = RunningBroker(kind, folder)
    try:
        yield broker
    finally:
        broker.stop()
