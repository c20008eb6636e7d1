"""What this device measured to choose variants: ``variants.json`` in the state folder.

An entry is about one bundle on this hardware with these versions and settings of the runtimes. It is both:

* **cache**: an entry that is complete answers the same question again without a measurement;
* **journal**: a variant is written down as being under test *before* it is loaded. An entry that is found
  like that after a start says that the process ended with that variant in it, and it is not tried again.

The file is small, written whole, and worth nothing but time: if it is damaged, it is as if it were empty.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent import durable
from agent.settings import Settings
from fleet.protocol.errors import StorageError
from fleet.protocol.messages import Capabilities
from fleet.protocol.names import Sha256
from fleet.protocol.records import Candidate
from fleet.variants import DeviceClass, class_of

log = logging.getLogger(__name__)

MAX_ENTRIES = 32
"""The latest are kept."""


class Entry(msgspec.Struct, frozen=True):
    """What is known of one bundle's variants.

    Attributes:
        manifest_sha256: The bundle.
        device: The hardware and runtimes that it was measured on.
        settings: What the owner's settings say about what computes.
        deployment_id: For which it was measured.
        candidates: What is known of each variant that was tried.
        under_test: The variant that is being tried; None between two.
        crashes: How often the process had ended during this deployment's tests when the entry was begun or
            gone on with; more of them say that the variant under test did it.
        complete: Whether all variants that were offered were tried.
    """

    manifest_sha256: Sha256
    device: DeviceClass
    settings: str
    deployment_id: str
    candidates: tuple[Candidate, ...] = ()
    under_test: str | None = None
    crashes: int = 0
    complete: bool = False

    def of(self, variant: str) -> Candidate | None:
        """Return what is known of a variant."""
        return next((each for each in self.candidates if each.variant == variant), None)

    def with_candidate(self, candidate: Candidate) -> Entry:
        """Return the entry with one variant's result, in place of an earlier one of it."""
        others = tuple(each for each in self.candidates if each.variant != candidate.variant)
        return msgspec.structs.replace(self, candidates=(*others, candidate), under_test=None)


class Measurements:
    """The entries.

    Args:
        path: The file; its folder exists.
        settings: The owner's settings.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._settings = _what_computes(settings)
        self._entries = _read(path)

    def find(self, manifest_sha256: str, device: Capabilities) -> Entry | None:
        """Return what is known of a bundle on this device as it is now."""
        key = _key(self.new(manifest_sha256, device, ""))
        return next((entry for entry in self._entries if _key(entry) == key), None)

    def new(self, manifest_sha256: str, device: Capabilities, deployment_id: str) -> Entry:
        """Return an entry about a bundle of which nothing is known yet."""
        return Entry(manifest_sha256, class_of(device), self._settings, deployment_id)

    def keep(self, entry: Entry) -> None:
        """Keep an entry in place of what was known.

        Raises:
            StorageError: It cannot be written; nothing has changed.
        """
        self._write([each for each in self._entries if _key(each) != _key(entry)] + [entry])

    def forget(self, entry: Entry) -> None:
        """Let the next question be answered by a measurement.

        Raises:
            StorageError: It cannot be written; nothing has changed.
        """
        self._write(each for each in self._entries if _key(each) != _key(entry))

    def _write(self, entries: Iterable[Entry]) -> None:
        kept = list(entries)[-MAX_ENTRIES:]
        durable.write_file(self._path, msgspec.json.encode(kept))
        self._entries = kept


def _key(entry: Entry) -> tuple[str, DeviceClass, str]:
    return entry.manifest_sha256, entry.device, entry.settings


def _what_computes(settings: Settings) -> str:
    providers = ",".join(settings.execution_providers)
    return f"{providers};{settings.litert_delegate};{settings.onnx_prepacking}"


def _read(path: Path) -> list[Entry]:
    try:
        with durable.storage_errors(path):
            data = path.read_bytes() if path.exists() else b"[]"
        return msgspec.json.decode(data, type=list[Entry])
    except (StorageError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("What was measured of variants cannot be read, so it is measured again: %s", error)
        return []
