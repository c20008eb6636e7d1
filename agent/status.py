"""What a state folder says about its device, also while no agent runs."""

from __future__ import annotations

import http.client
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from agent.identity import read_identity
from agent.life.gate import read_waiting
from agent.life.hold import held
from agent.life.store import LifeStore
from agent.life.terms import model_state
from agent.settings import read_settings
from agent.trust.director import read_sequence
from fleet.protocol.errors import StorageError
from fleet.protocol.messages import ModelState

TIMEOUT_S = 2.0
"""How long a running agent may take to answer."""


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
        accelerators: What computes each model that answers, as the running agent tells.
        held: That updates are held on the device, a sentence; None if they are not.
    """

    device_id: str
    hub_url: str
    running: bool
    sequence: int
    socket: str
    models: tuple[ModelState, ...]
    unacknowledged_records: int
    accelerators: dict[str, str]
    held: str | None = None


def read_status(state: Path) -> Status:
    """Return what the folder says.

    Raises:
        InvalidConfiguration: It is not the state folder of an enrolled device.
        StorageError: It cannot be read.
    """
    identity = read_identity(state)
    socket_path = read_settings(state).socket(state)
    lives, _ = LifeStore(state / "life").load()
    answers = {model: _accelerator(socket_path, model) for model in sorted(lives)}
    running = _accepts(socket_path)
    waiting = read_waiting(state) if running else {}
    return Status(
        device_id=identity.device_id,
        hub_url=identity.hub_url,
        running=running,
        sequence=read_sequence(state / "trust"),
        socket=str(socket_path),
        models=tuple(
            model_state(model, stored.life, stored.life.serving, waiting.get(model))
            for model, stored in sorted(lives.items())
        ),
        unacknowledged_records=_waiting_records(state / "outbox.sqlite"),
        accelerators={model: answer for model, answer in answers.items() if answer},
        held=held(state),
    )


def _accepts(path: Path) -> bool:
    """Tell whether a process listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(TIMEOUT_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _accelerator(path: Path, model: str) -> str:
    """Return what computes a model, as the agent's local API says; empty if nobody answers."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT_S)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", f"/v2/models/{model}/config")
        answer = connection.getresponse()
        return str(msgspec.json.decode(answer.read())["parameters"]["accelerator"]["string_value"])
    except (OSError, http.client.HTTPException, msgspec.DecodeError, KeyError, TypeError):
        return ""
    finally:
        connection.close()


def _waiting_records(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
            if ("record",) not in tables:
                return 0  # an agent that starts for the first time is just making it
            count: int = database.execute("SELECT count(*) FROM record").fetchone()[0]
            return count
    except sqlite3.Error as error:
        raise StorageError(f"The outbox cannot be read: {error}.") from error
