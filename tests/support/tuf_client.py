"""A real TUF client that reads an image repository through the hub's own reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater  # type: ignore[attr-defined]  # re-exported there

BASE = "memory://"


class ReaderFetcher(FetcherInterface):
    """Fetches with a function from path to bytes, as a device does over MQTT."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self._read = read

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._read(url.removeprefix(BASE))
        if data is None:
            raise DownloadHTTPError("no such file", 404)
        yield data


def updater(folder: Path, first_root: bytes, read: Callable[[str], bytes | None]) -> Updater:
    """Return python-tuf's client with its state in ``folder``, not yet refreshed."""
    for name in ("metadata", "targets"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Updater(
        metadata_dir=str(folder / "metadata"),
        metadata_base_url=f"{BASE}metadata/",
        target_dir=str(folder / "targets"),
        target_base_url=f"{BASE}targets/",
        fetcher=ReaderFetcher(read),
        bootstrap=first_root,
    )


def download(client: Updater, path: str) -> bytes:
    """Return a target's verified bytes.

    Raises:
        KeyError: Trusted metadata names no such target.
    """
    target = client.get_targetinfo(path)
    if target is None:
        raise KeyError(path)
    return Path(client.download_target(target)).read_bytes()
