"""The image repository as this device trusts it: which bundles exist, and who the director is.

python-tuf's ``Updater`` carries out the client workflow of the TUF specification (section 5) from the root
that enrolment pinned. Two things are ours: how files arrive (`agent.trust.fetcher`), and that what is
trusted is written so that it lasts: stock python-tuf renames without fsync, and a power cut could bring
old, or empty, trusted metadata back.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import DownloadError, LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # re-exported there
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from agent import durable
from fleet.protocol.director import (
    DIRECTOR_TARGET,
    MAX_DIRECTOR_SIZE_BYTES,
    DirectorKeys,
    decode_director_keys,
)
from fleet.protocol.errors import DigestMismatch, MetadataRejected
from fleet.protocol.manifest import MAX_MANIFEST_SIZE_BYTES, manifest_sha256, target_path

_T = TypeVar("_T")
_HASH = "sha256"
DOWNLOADS_FOLDER = "downloads"
"""Where targets are while they are verified; emptied at every start."""


class _DurableUpdater(Updater):
    """python-tuf's client, which writes trusted metadata so that it survives a power cut."""

    def _persist_file(self, filename: str, data: bytes) -> None:
        durable.write_file(Path(filename), data)


class ImageRepository:
    """Looks targets up in verified metadata. Its methods are coroutines; the work runs in one thread.

    One thread, because clients of one metadata folder must not run at the same time, and a caller that was
    cancelled leaves its thread running.

    Args:
        folder: Where trusted metadata is kept.
        root: The root metadata that enrolment pinned.
        fetcher: Brings the files.
    """

    def __init__(self, folder: Path, root: bytes, fetcher: FetcherInterface) -> None:
        self._folder = folder
        self._downloads = folder / DOWNLOADS_FOLDER
        self._root = root
        self._fetcher = fetcher
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="image-repository")
        durable.make_folder(folder / "root_history")
        durable.remove_tree(self._downloads)  # of a process that was killed

    async def director_keys(self) -> DirectorKeys:
        """Refresh the metadata and return the keys that may sign assignments.

        Raises:
            MetadataRejected: The metadata breaks the client workflow, or vouches for no director.
            DigestMismatch: The keys are not the ones that the metadata vouches for.
            DeliveryTimedOut: The hub does not send the files.
        """
        return await self._run(self._director_keys)

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
        return await self._run(lambda: self._manifest(model, version, sha256, held))

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _director_keys(self) -> DirectorKeys:
        with _converted(), self._updater() as updater:
            target = _target(updater, DIRECTOR_TARGET, MAX_DIRECTOR_SIZE_BYTES)
            return decode_director_keys(_download(updater, target))

    def _manifest(self, model: str, version: int, sha256: str, held: bytes | None) -> bytes:
        with _converted(), self._updater() as updater:
            target = _target(updater, target_path(model, version), MAX_MANIFEST_SIZE_BYTES)
            if target.hashes.get(_HASH) != sha256:
                raise DigestMismatch(
                    f"The assignment names another manifest of {model} version {version} than was released."
                )
            if held is not None and manifest_sha256(held) == sha256:
                return held
            data = _download(updater, target)
            if manifest_sha256(data) != sha256:
                raise DigestMismatch(f"The manifest of {model} version {version} is not the released one.")
            return data

    @contextmanager
    def _updater(self) -> Iterator[Updater]:
        durable.make_folder(self._downloads)
        with tempfile.TemporaryDirectory(dir=self._downloads) as downloads:
            yield _DurableUpdater(
                metadata_dir=str(self._folder),
                metadata_base_url="metadata/",
                target_dir=downloads,
                target_base_url="targets/",
                fetcher=self._fetcher,
                bootstrap=self._root,
            )


def _target(updater: Updater, path: str, limit_bytes: int) -> TargetFile:
    target = updater.get_targetinfo(path)
    if target is None:
        raise MetadataRejected(f"The image repository has not released {path}.")
    if target.length > limit_bytes:
        raise MetadataRejected(f"{path} has {target.length} bytes; {limit_bytes} are allowed.")
    return target


def _download(updater: Updater, target: TargetFile) -> bytes:
    data = Path(updater.download_target(target)).read_bytes()
    target.verify_length_and_hashes(data)
    return data


@contextmanager
def _converted() -> Iterator[None]:
    """Turn python-tuf's exceptions into ours. `MusterError` passes: the fetcher and the writer raise it."""
    try:
        yield
    except LengthOrHashMismatchError as error:
        raise DigestMismatch(f"A file of the image repository was altered: {error}.") from error
    except (RepositoryError, DownloadError, ValueError) as error:
        raise MetadataRejected(f"The image repository's metadata is refused: {error}.") from error
    except OSError:
        with durable.storage_errors(Path("the trusted metadata")):
            raise
