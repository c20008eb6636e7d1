"""Files that survive a power cut: write beside, fsync, rename, fsync the folder.

After `write_durably` returns, the file holds the new bytes whatever happens; before, it holds the old bytes
or nothing. There is no moment at which a reader, or the next start, can see a part.
"""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from fleet.protocol.errors import NoSpace, StorageError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's contents atomically and durably; missing folders are made.

    Args:
        path: The file.
        data: Its new contents.
        mode: Its permission bits.

    Raises:
        NoSpace: The disk is full; the old contents are intact.
        StorageError: It cannot be written; the old contents are intact.
    """
    try:
        make_folder(path.parent)
        temporary = _written_beside(path, data, mode)
        try:
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error


def create_durably(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Write a file that must not exist yet, atomically and durably.

    Args:
        path: The file.
        data: Its contents.
        mode: Its permission bits.

    Returns:
        False if the file existed already; it was left alone.

    Raises:
        NoSpace: The disk is full; there is no such file.
        StorageError: It cannot be written; there is no such file.
    """
    try:
        make_folder(path.parent)
        temporary = _written_beside(path, data, mode)
        try:
            path.hardlink_to(temporary)  # unlike a rename, a link never replaces
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and its parents durably.

    Raises:
        OSError: It cannot be made.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable.

    Raises:
        OSError: The system refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the error of our tree for a failure of the file system."""
    if error.errno in _NO_SPACE:
        return NoSpace(f"There is no space left to write {path}.", remedy="Free some space and try again.")
    return StorageError(f"{path} cannot be used: {error.strerror or error}.")


def _written_beside(path: Path, data: bytes, mode: int) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return temporary
