"""What a state folder says about its device, also while no agent runs."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from agent.identity import read_identity
from agent.life.store import LifeStore
from agent.life.terms import model_state
from agent.settings import read_settings
from agent.trust.director import read_sequence
from fleet.protocol.errors import StorageError
from fleet.protocol.messages import ModelState


class Status(msgspec.Struct, frozen=True):
    """The device at a glance.

    Attributes:
        device_id: Its name.
        hub_url: Where it enrolled.
        running: Whether an agent runs on the folder.
        sequence: Highest assignment sequence number accepted.
        socket: Where the local inference API listens.
        models: What it holds of each model.
        unacknowledged_records: Records that the hub does not have yet.
    """

    device_id: str
    hub_url: str
    running: bool
    sequence: int
    socket: str
    models: tuple[ModelState, ...]
    unacknowledged_records: int


def read_status(state: Path) -> Status:
    """Return what the folder says.

    Raises:
        InvalidConfiguration: It is not the state folder of an enrolled device.
        StorageError: It cannot be read.
    """
    identity = read_identity(state)
    socket_path = read_settings(state).socket(state)
    lives, _ = LifeStore(state / "life").load()
    return Status(
        device_id=identity.device_id,
        hub_url=identity.hub_url,
        running=_accepts(socket_path),
        sequence=read_sequence(state / "trust"),
        socket=str(socket_path),
        models=tuple(
            model_state(model, stored.life, stored.life.serving) for model, stored in sorted(lives.items())
        ),
        unacknowledged_records=_waiting_records(state / "outbox.sqlite"),
    )


def _accepts(path: Path) -> bool:
    """Tell whether a process listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _waiting_records(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            count: int = database.execute("SELECT count(*) FROM record").fetchone()[0]
            return count
    except sqlite3.Error as error:
        raise StorageError(f"The outbox cannot be read: {error}.") from error
