"""The versions that an agent has installed, for a process of another program on the device.

The agent's state folder is only read. What it says is believed as the agent itself believes it: every byte of
a version is hashed before it is loaded, and it answers the golden inputs before it answers anybody else.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from agent import capabilities, durable
from agent.blobs import BlobStore
from agent.hosting.hosted import Hosted
from agent.identity import FILE_NAME, is_enrolled
from agent.life.opening import Opener
from agent.life.slots import Slots
from agent.life.store import LifeStore
from agent.life.terms import Life, Release
from agent.runtimes.joining import joinable_samples
from agent.runtimes.self_test import run_self_test
from agent.settings import read_settings
from fleet.protocol.errors import InvalidConfiguration, MusterError, NotFound, StorageCorrupt, Unavailable
from fleet.protocol.names import checked_name
from fleet.protocol.requirement import suitable_runtime

log = logging.getLogger(__name__)

ATTEMPTS = 3

Stamp = tuple[int, int] | None
"""Another one after the state of the model was written."""


class Opened(NamedTuple):
    """A version in memory, and the stamp of the state that it was chosen by."""

    hosted: Hosted
    stamp: Stamp


class Source:
    """The installed versions of one model.

    Args:
        state: The agent's state folder.
        model: The model.

    Raises:
        InvalidConfiguration: It is no state folder of an enrolled device, or its settings cannot be read.
        StorageError: This process may not read it.
        InvalidName: No model can have that name.
    """

    def __init__(self, state: Path, model: str) -> None:
        self.model = checked_name(model, "model name")
        with durable.storage_errors(state):
            enrolled = is_enrolled(state)
        if not enrolled:
            raise InvalidConfiguration(
                f"{state} is not the state folder of an enrolled device: it has no {FILE_NAME}.",
                remedy="Name the agent's state folder.",
            )
        self.settings = read_settings(state)
        self._state = state
        self._lives = LifeStore(state / "life")
        self._slots = Slots(state / "models", BlobStore(state / "blobs"))
        self._opener = Opener(self.settings, lambda error: log.warning("%s", error))

    def stamp(self) -> Stamp:
        """Return what is another after the model's state was written.

        Raises:
            StorageError: The file cannot be looked at.
        """
        return self._lives.stamp(self.model)

    def committed(self) -> Release | None:
        """Return the version that is committed; None if none is, or the device has the model no more.

        Raises:
            StorageError: The state cannot be read.
        """
        return self._life().active

    def open(self, version: int | None) -> Opened:
        """Bring a version into memory; again from the start if an update removes it meanwhile.

        Args:
            version: Its number; None for the one that is committed.

        Raises:
            NotFound: The device does not have it.
            Unavailable: No version is committed yet.
            MusterError: It cannot be loaded.
        """
        for _ in range(ATTEMPTS):
            stamp = self.stamp()
            if stamp is None:
                raise NotFound(f"Model {self.model} is not on this device.")
            release = self._wanted(version)
            try:
                return Opened(self.load(release), stamp)
            except StorageCorrupt:
                if self.stamp() == stamp:
                    raise
        raise Unavailable(f"Model {self.model} is being updated.", remedy="Try again in a moment.")

    def load(self, release: Release) -> Hosted:
        """Bring a version into memory after hashing every byte of it, and let it answer the golden inputs.

        Raises:
            StorageCorrupt: It is damaged on disk, or gone.
            ModelError: No runtime here can run it, it does not fit into memory, or its answers are wrong.
        """
        slot = self._slots.open(self.model, release)
        name = suitable_runtime(slot.variant.requirement, capabilities.measure(self._state))
        loaded = self._opener.open(slot, name)
        run_self_test(loaded, slot.manifest, slot.variant, slot.folder)
        unused = ThreadPoolExecutor(1)  # begins no thread before it is given work: callers compute themselves
        limit = self.settings.batch_limit
        hosted = Hosted(
            slot,
            loaded,
            unused,
            self.settings.inference_timeout_s,
            loop=None,
            joined_samples=joinable_samples(loaded, slot.manifest, slot.variant, slot.folder, limit),
        )
        hosted.counter.begin(time.time())
        return hosted

    def _wanted(self, version: int | None) -> Release:
        life = self._life()
        kept = [release for release in (life.active, life.previous) if release is not None]
        if version is not None:
            for release in kept:
                if release.version == version:
                    return release
            raise NotFound(
                f"Version {version} of model {self.model} is not installed on this device; "
                f"{', '.join(str(release.version) for release in kept) or 'none'} is."
            )
        if life.active is None:
            raise Unavailable(f"No version of model {self.model} is committed yet: it is {life.phase}.")
        return life.active

    def _life(self) -> Life:
        try:
            return self._lives.read(self.model).life
        except MusterError:
            if self.stamp() is None:  # withdrawn meanwhile
                return Life()
            raise
