"""python-tuf: the client workflow of the TUF specification (section 5), run in a thread.

Two things are ours: how files arrive, and that what is trusted is written so that it lasts: stock python-tuf
renames without fsync, and a power cut could bring old, or empty, trusted metadata back.

Imported when the repository is asked for the first time, which is never before what is installed answers:
python-tuf and what it needs take a quarter of the agent's imports.

python-tuf works synchronously; the messages are the event loop's. A file larger than one answer comes in
parts::

    thread                         event loop                        hub
    fetch("metadata/2.root.json") → FetchRequest(7, path, 0)       →
                                  ← FileAnswer(7, size 90000, 65536 bytes)
           yields 65536 bytes     → FetchRequest(8, path, 65536)   →
                                  ← FileAnswer(8, size 90000, 24464 bytes)
           yields 24464 bytes

python-tuf counts what is yielded against the size that it allows for the file, and verifies it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError, LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # re-exported there
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from agent import durable
from agent.trust.fetcher import FileClient
from fleet.protocol.errors import DigestMismatch, MetadataRejected
from fleet.protocol.messages import FileAnswer

NOT_FOUND = 404
_HASH = "sha256"


class RepositoryFetcher(FetcherInterface):
    """python-tuf's way to the files, called in its thread.

    Args:
        files: Asks the hub.
        loop: The event loop that ``files`` lives in.
    """

    def __init__(self, files: FileClient, loop: asyncio.AbstractEventLoop) -> None:
        self._files = files
        self._loop = loop

    def _fetch(self, url: str) -> Iterator[bytes]:
        offset = 0
        size_bytes: int | None = None
        while size_bytes is None or offset < size_bytes:
            asked = asyncio.run_coroutine_threadsafe(self._files.part(url, offset), self._loop)
            answer: FileAnswer = asked.result()
            if answer.size_bytes is None:
                raise DownloadHTTPError(f"The image repository has no file {url}.", NOT_FOUND)
            if size_bytes is not None and size_bytes != answer.size_bytes:
                raise DownloadError(f"{url} changed its size while it was sent.")
            size_bytes = answer.size_bytes
            if offset + len(answer.data) > size_bytes or (not answer.data and offset < size_bytes):
                raise DownloadError(f"A part of {url} does not fit its stated size.")
            offset += len(answer.data)
            yield answer.data


class _DurableUpdater(Updater):
    """python-tuf's client, which writes trusted metadata so that it survives a power cut."""

    def _persist_file(self, filename: str, data: bytes) -> None:
        durable.write_file(Path(filename), data)


class TufClient:
    """Looks targets up in freshly verified metadata.

    Args:
        folder: Where trusted metadata is kept.
        downloads: Where targets are while they are verified.
        root: The root metadata that enrolment pinned.
        fetcher: Brings the files.
    """

    def __init__(self, folder: Path, downloads: Path, root: bytes, fetcher: FetcherInterface) -> None:
        self._folder = folder
        self._downloads = downloads
        self._root = root
        self._fetcher = fetcher

    def target(
        self, path: str, limit_bytes: int, *, sha256: str | None = None, held: bytes | None = None
    ) -> bytes:
        """Refresh the metadata and return a target that it vouches for.

        Args:
            path: The target's.
            limit_bytes: How large it may be.
            sha256: The digest that it has to have, if somebody else vouches for it too.
            held: The bytes with that digest, if they are here: the target is then looked up, not downloaded.

        Raises:
            MetadataRejected: The metadata breaks the client workflow, or does not have the target.
            DigestMismatch: The target is not the one that metadata, or ``sha256``, vouches for.
            DeliveryTimedOut: The hub does not send the files.
        """
        with _converted(), self._updater() as updater:
            target = _target(updater, path, limit_bytes)
            if sha256 is not None and target.hashes.get(_HASH) != sha256:
                raise DigestMismatch(f"{path} was released with another digest than the one ordered.")
            return _download(updater, target) if held is None else held

    @contextmanager
    def _updater(self) -> Iterator[Updater]:
        durable.make_own_folder(self._downloads)
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
