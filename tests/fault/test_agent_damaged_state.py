"""Every file and folder of a device's state is damaged: the agent serves what it verified, or says why not.

The files are those of a real device with two versions. A start ends in an answer of one of them, the very
numbers that it gave before, or in one line that says what is wrong and what to do.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fleet.protocol.deployment import DeploymentState as S
from tests.support.agent_bundles import build
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    mosquitto_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.faulty_device import FaultyDevice
from tests.support.thoroughness import ALL
from tests.support.waiting import eventually

pytestmark = pytest.mark.thorough

ONE, TWO, THREE = build(1), build(2), build(3)
_numbers = count(1)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def make_a_folder(path: Path) -> None:
    remove(path)
    path.mkdir()


def make_a_file(path: Path) -> None:
    remove(path)
    path.write_bytes(b"no folder")


def make_unreadable(path: Path) -> None:
    """Put a link to itself there: nobody can open that, also not the superuser."""
    remove(path)
    path.symlink_to(path.name)


REFUSAL = re.compile(r"error: .+\. [A-Z].+\. \[[a-z_]+\]")
"""What is wrong, what to do, and the code."""

NAMED = ("life/digits.state", "blobs")
"""What `make test` tries."""

FOR_GOOD = ("identity.json", "trust/assignment.accepted")
"""Without these a device goes on as it is, and must be enrolled again to be given anything new."""

WAYS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "empty": empty,
    "flipped": flip,
    "removed": remove,
    "a folder": make_a_folder,
    "a file": make_a_file,
    "unreadable": make_unreadable,
}
OF_FILES = ("truncated", "empty", "flipped", "removed", "a folder", "unreadable")
OF_FOLDERS = ("removed", "a file", "unreadable")


class Kept:
    """A device whose state can be put back as it was.

    Args:
        device: It answers with version 2, and version 1 is installed.
        outputs: What each version answered, by its number.
    """

    def __init__(self, device: FaultyDevice, outputs: dict[str, Any]) -> None:
        self.device = device
        self.outputs = outputs
        self._socket = device.socket
        self._said = 0
        self._template = device.state.with_name("template")
        device.state.rename(self._template)

    def cases(self, way: str) -> list[str]:
        """Return the paths to damage in a way."""
        found = sorted(self._template.rglob("*"))
        fitting = [path for path in found if way in (OF_FOLDERS if path.is_dir() else OF_FILES)]
        paths = [str(path.relative_to(self._template)) for path in fitting]
        return paths if ALL else [path for path in paths if path.endswith(NAMED)]

    def put_back(self) -> None:
        """Undo whatever was done to the state."""
        shutil.rmtree(self.device.state, ignore_errors=True)
        shutil.copytree(self._template, self.device.state)
        self._socket.unlink(missing_ok=True)
        self._said = len(self.device.log_text())

    def is_served(self) -> bool:
        """Wait for what comes of a start; tell whether it is a right answer, and not a right refusal."""
        device = self.device
        eventually(lambda: not device.is_running() or self._is_answering())
        said = device.log_text()[self._said :]
        assert "Traceback" not in said
        if device.is_running():
            return True
        last = said.splitlines()[-1]
        assert device.end_code() == 1
        assert REFUSAL.fullmatch(last), last
        return False

    def _is_answering(self) -> bool:
        # Without its settings, the socket is in its usual place.
        self.device.socket = self._socket if self._socket.exists() else self.device.state / "agent.sock"
        if self.device.answering_version() is None:
            return False
        body = self.device.infer(SAMPLE).body
        assert body["outputs"] == self.outputs[body["model_version"]]
        return True


@pytest.fixture(name="kept")
def kept_fixture(peer: Peer, tmp_path: Path) -> Iterator[Kept]:
    device = FaultyDevice(peer, tmp_path, f"dev-damaged-{next(_numbers)}")
    peer.release(ONE, TWO, THREE)
    device.start()
    outputs = {}
    for bundle in (ONE, TWO):
        peer.assign(device.id, (bundle, f"d-{bundle.manifest.version}"))
        peer.wait_report(f"d-{bundle.manifest.version}", S.SUCCEEDED)
        outputs[str(bundle.manifest.version)] = device.infer(SAMPLE).body["outputs"]
    device.kill()
    yield Kept(device, outputs)
    device.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ways", [[way] for way in WAYS] if ALL else [[*WAYS]], ids=", ".join)
def test_a_damaged_state_is_served_from_or_refused(peer: Peer, kept: Kept, ways: list[str]) -> None:
    """Where it is served from, the next update repairs what it needs, but for what enrolment gave."""
    device = kept.device
    for way, path in [(each, path) for each in ways for path in kept.cases(each)]:
        kept.put_back()
        WAYS[way](device.state / path)
        device.start()
        if not kept.is_served():
            continue
        if ALL and path not in FOR_GOOD:
            peer.assign(device.id, (THREE, "d-3"))
            device.wait_version(3)
            peer.assign(device.id, (TWO, "d-2"))
        device.kill()
