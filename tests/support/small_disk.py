"""A real disk that a test can fill: a small tmpfs.

Mounting takes a privilege. Where the test has none, it runs once more inside a user and mount namespace of
its own, in a child process, and passes as that run does. Where that is not allowed either, it is left out on
a person's machine; in CI that is a failure.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec

from tests.support.needed import leave_out

_P = ParamSpec("_P")

_INSIDE = "MUSTER_TEST_HAS_NAMESPACE"
_NAMESPACE = ("unshare", "--user", "--map-current-user", "--keep-caps", "--mount")
_LAZY = 2  # MNT_DETACH of umount2(2)


class SmallDisk:
    """A mounted tmpfs.

    Args:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Use up every byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size_bytes in (65536, 4096, 1):
                try:
                    while True:
                        ballast.write(bytes(size_bytes))
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs for a block of a test that is marked with `on_small_disk`.

    Args:
        folder: A new folder to mount it at.
        size_bytes: How much fits.
    """
    folder.mkdir()
    _mount(folder, size_bytes)
    try:
        yield SmallDisk(folder)
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(folder), _LAZY)


def on_small_disk(test: Callable[_P, None]) -> Callable[_P, None]:
    """Run a test where it can mount `small_disk`."""

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        if os.geteuid() == 0 or os.environ.get(_INSIDE):
            test(*args, **kwargs)
        else:
            _run_in_namespace(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])

    return run


def _mount(folder: Path, size_bytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size_bytes}".encode()) != 0:
        leave_out(f"A tmpfs of its own cannot be mounted: {os.strerror(ctypes.get_errno())}.")


def _run_in_namespace(test: str) -> None:
    allowed = subprocess.run([*_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode != 0:
        leave_out(f"There are neither root nor namespaces for a disk of its own: {allowed.stderr.strip()}")
    done = subprocess.run(
        [*_NAMESPACE, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env={**os.environ, _INSIDE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
