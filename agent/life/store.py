"""Where the state of each model is written: ``life/<model>.state``, one file each.

Replacing the file is the one switch that activates a version: everything else on disk is only looked at
through it. A file also holds the reports of its last step until they are in the outbox, so that a crash
between the two loses none.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent import durable
from agent.life.terms import Life, Report
from fleet.protocol.errors import StorageCorrupt

SUFFIX = ".state"


class Stored(msgspec.Struct, frozen=True):
    """What a file holds.

    Attributes:
        life: The state.
        reports: Reports of the last step that may not be in the outbox yet.
    """

    life: Life
    reports: tuple[Report, ...] = ()


_DECODER = msgspec.json.Decoder(Stored)  # made once: two threads that were the first to use a type crash


class LifeStore:
    """The folder of state files.

    Args:
        folder: Where they are; created if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> tuple[dict[str, Stored], list[StorageCorrupt]]:
        """Return the state of every model, and what is wrong with files that cannot be understood.

        Raises:
            StorageError: One cannot be read now; it would be wrong to go on as if it were not there.
        """
        found: dict[str, Stored] = {}
        damaged: list[StorageCorrupt] = []
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            model = path.name.removesuffix(SUFFIX)
            try:
                found[model] = self.read(model)
            except StorageCorrupt as error:
                damaged.append(error)
        return found, damaged

    def read(self, model: str) -> Stored:
        """Return the state of a model that has one.

        Raises:
            StorageCorrupt: It cannot be understood.
            StorageError: It cannot be read.
        """
        path = self._path(model)
        with durable.storage_errors(path):
            data = path.read_bytes() if path.is_file() else b""
        try:
            return _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StorageCorrupt(f"The state of model {model} is damaged.") from error

    def stamp(self, model: str) -> tuple[int, int] | None:
        """Return what is another after the state of a model was written; None if the device has none.

        Raises:
            StorageError: The file cannot be looked at.
        """
        path = self._path(model)
        with durable.storage_errors(path):
            try:
                status = path.stat()
            except FileNotFoundError:
                return None
        return status.st_ino, status.st_mtime_ns

    def save(self, model: str, stored: Stored) -> None:
        """Write the state of a model; from then on it is the state.

        Raises:
            StorageError: It cannot be written; the state before stands.
        """
        durable.make_own_folder(self._folder)
        path = self._folder / f"{model}{SUFFIX}"
        durable.write_file(path, msgspec.json.encode(stored))

    def forget(self, model: str) -> None:
        """Remove the state of a model that the device no longer has."""
        durable.remove_file(self._path(model))

    def _path(self, model: str) -> Path:
        return self._folder / f"{model}{SUFFIX}"
