"""Writing so that a power cut leaves the old file or the new one, never half of one.

::

    write a temporary file → fsync it → rename it over the old one → fsync the folder

The rename is atomic (POSIX ``rename``); the first fsync keeps it from overtaking the data, the second makes
it last. Everything that the agent must not lose is written here and nowhere else, and this is where the
system's errors about storage become ours.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.protocol.errors import NoSpace, StorageError

log = logging.getLogger(__name__)

PRIVATE = 0o600
PUBLIC = 0o644
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into one of our tree.

    Args:
        path: What is read or written, for the message.

    Raises:
        NoSpace: The disk or the quota is full.
        StorageError: Anything else went wrong with it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(f"There is no space left to write {path}.", remedy="Free some space.") from error
        raise StorageError(
            f"{path} cannot be used: {error.strerror or error}.",
            remedy="Check the disk, and whether it is the agent's own.",
        ) from error


def write_file(path: Path, data: bytes, *, mode: int = PUBLIC) -> None:
    """Replace a file's contents, all or nothing.

    Args:
        path: The file; its folder exists.
        data: The new contents.
        mode: Permissions, in force before the first byte is written.

    Raises:
        NoSpace: The disk is full; the old contents stand.
        StorageError: It cannot be written; the old contents stand.
    """
    temporary = path.with_name(f".{path.name}.new")
    with storage_errors(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with open(descriptor, "wb") as stream:  # noqa: PTH123 - it is open already
                stream.write(data)
                stream.flush()
                os.fsync(descriptor)
            if path.is_dir():
                put_aside(path)
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def sync_folder(path: Path) -> None:
    """Make the entries of a folder last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder, with its parents, so that it lasts.

    Raises:
        StorageError: It cannot be created.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    with storage_errors(path):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def make_own_folder(path: Path) -> None:
    """Do the same within the state folder, where what is no folder is damage: it is put aside.

    Raises:
        StorageError: It cannot be created.
    """
    if path.is_dir():
        return
    make_own_folder(path.parent)
    with storage_errors(path):
        if not _is_gone(path):
            put_aside(path)
    make_folder(path)


def put_aside(path: Path) -> None:
    """Give what cannot be used the name ``<name>.damaged``, in place of what had it."""
    aside = path.with_name(path.name + ".damaged")
    remove_tree(aside)
    path.replace(aside)
    sync_folder(path.parent)
    log.warning("%s cannot be used and was put aside as %s.", path, aside.name)


def _is_gone(path: Path) -> bool:
    """Tell whether nothing is there; a link to a disk that is not mounted is not to be replaced either."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    return False


def remove_file(path: Path) -> None:
    """Remove a file if it is there, so that it stays away.

    Raises:
        StorageError: It cannot be removed.
    """
    with storage_errors(path):
        if path.exists():
            path.unlink()
            sync_folder(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder with all it holds, or what is there in its place.

    Raises:
        StorageError: It cannot be removed.
    """
    with storage_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()
        else:
            return
        sync_folder(path.parent)
