"""The image repository as this device trusts it: which bundles exist, and who the director is.

`agent.trust.tuf_client` verifies; here stands what is asked, and the one thread that asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent import durable
from agent.trust.fetcher import FileClient
from fleet.protocol.director import (
    DIRECTOR_TARGET,
    MAX_DIRECTOR_SIZE_BYTES,
    DirectorKeys,
    decode_director_keys,
)
from fleet.protocol.errors import DigestMismatch
from fleet.protocol.manifest import MAX_MANIFEST_SIZE_BYTES, manifest_sha256, target_path

if TYPE_CHECKING:
    from agent.trust.tuf_client import TufClient

_T = TypeVar("_T")
DOWNLOADS_FOLDER = "downloads"
"""Where targets are while they are verified; emptied at every start."""


class ImageRepository:
    """Looks targets up in verified metadata. Its methods are coroutines; the work runs in one thread.

    One thread, because clients of one metadata folder must not run at the same time, and a caller that was
    cancelled leaves its thread running.

    Args:
        folder: Where trusted metadata is kept.
        root: The root metadata that enrolment pinned.
        files: Brings the files.
    """

    def __init__(self, folder: Path, root: bytes, files: FileClient) -> None:
        self._folder = folder
        self._root = root
        self._files = files
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="image-repository")
        self._client: TufClient | None = None
        durable.make_own_folder(folder / "root_history")
        durable.remove_tree(folder / DOWNLOADS_FOLDER)  # of a process that was killed
        if (folder / "root.json").is_dir():  # else it is a link, which python-tuf replaces
            durable.remove_tree(folder / "root.json")

    async def director_keys(self) -> DirectorKeys:
        """Refresh the metadata and return the keys that may sign assignments.

        Raises:
            MetadataRejected: The metadata breaks the client workflow, or vouches for no director.
            DigestMismatch: The keys are not the ones that the metadata vouches for.
            DeliveryTimedOut: The hub does not send the files.
        """
        return await self._run(
            lambda client: decode_director_keys(client.target(DIRECTOR_TARGET, MAX_DIRECTOR_SIZE_BYTES))
        )

    async def manifest(self, model: str, version: int, sha256: str, held: bytes | None) -> bytes:
        """Refresh the metadata and return the manifest that both the repository and the assignment vouch for.

        Args:
            model: Name of the model.
            version: Its version.
            sha256: The digest in the assignment.
            held: The manifest, if the device has it already; it is then not downloaded.

        Raises:
            MetadataRejected: The metadata breaks the client workflow, or does not have the version.
            DigestMismatch: The repository's manifest is not the one that the assignment names.
            DeliveryTimedOut: The hub does not send the files.
        """
        here = held if held is not None and manifest_sha256(held) == sha256 else None
        path, limit_bytes = target_path(model, version), MAX_MANIFEST_SIZE_BYTES
        data = await self._run(lambda client: client.target(path, limit_bytes, sha256=sha256, held=here))
        if manifest_sha256(data) != sha256:
            raise DigestMismatch(f"The manifest of {model} version {version} is not the released one.")
        return data

    async def _run(self, work: Callable[[TufClient], _T]) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(self._tuf(loop)))

    def _tuf(self, loop: asyncio.AbstractEventLoop) -> TufClient:
        """Return python-tuf's client; called in the thread."""
        if self._client is None:
            from agent.trust.tuf_client import RepositoryFetcher, TufClient  # heavy, and not needed to serve

            fetcher = RepositoryFetcher(self._files, loop)
            self._client = TufClient(self._folder, self._folder / DOWNLOADS_FOLDER, self._root, fetcher)
        return self._client
