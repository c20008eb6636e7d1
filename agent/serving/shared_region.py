"""A region of shared memory: a part of a file in ``/dev/shm``, and tensors in parts of it.

::

    file      ├─────────┬───────────────────────────────┬───────┤
    region              ├ offset ─── byte_size ─────────┤            as registered
    tensor                  ├ shared_memory_byte_size ┤              at shared_memory_offset

A region is never mapped: its bytes are copied by pread(2) and pwrite(2). So a client that takes pages away
again does not end the agent by SIGBUS but gets an error, and values are checked where nobody changes them.

Whoever asks has to own the file: else a program could have the agent read and write what is another's.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from typing import Annotated, NamedTuple

import msgspec

from fleet.protocol.errors import InvalidMessage, NotFound, NotPermitted

FOLDER = "/dev/shm"  # noqa: S108 - where shm_open(3) makes its files; who owns them is checked
_MOST = 2**63 - 1  # of off_t


class RegisterRequest(msgspec.Struct):
    """What a region shall be: a part of a file."""

    key: str
    byte_size: Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
    offset: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] = 0


class Region:
    """A part of an open file; the file is closed when nobody has the region any more.

    Args:
        descriptor: Of the file.
        name: The region's.
        request: What was registered.
    """

    def __init__(self, descriptor: int, name: str, request: RegisterRequest) -> None:
        self.descriptor = descriptor
        self.name = name
        self.key, self.offset, self.size_bytes = request.key, request.offset, request.byte_size
        weakref.finalize(self, os.close, descriptor)


class Part(NamedTuple):
    """Where a tensor is, or goes.

    Attributes:
        region: The region.
        offset: In it.
        size_bytes: What the tensor takes, or what there is room for.
    """

    region: Region
    offset: int
    size_bytes: int

    def read(self) -> bytes:
        """Return a copy of what is there.

        Raises:
            InvalidMessage: The file has become too short.
        """
        region = self.region
        try:
            data = os.pread(region.descriptor, self.size_bytes, region.offset + self.offset)
        except OSError as error:
            raise InvalidMessage(f"Region {region.name!r} cannot be read: {error.strerror}.") from error
        if len(data) != self.size_bytes:
            raise InvalidMessage(f"The file of region {region.name!r} has become shorter.")
        return data

    def write(self, data: bytes) -> None:
        """Copy what fits here.

        Raises:
            InvalidMessage: The file has become too short, or its memory is used up.
        """
        region, start = self.region, self.region.offset + self.offset
        try:
            if os.fstat(region.descriptor).st_size < start + len(data):  # to write would make it longer
                raise InvalidMessage(f"The file of region {region.name!r} has become shorter.")
            written = os.pwrite(region.descriptor, data, start)
        except OSError as error:
            raise InvalidMessage(f"Region {region.name!r} cannot be written: {error.strerror}.") from error
        if written != len(data):
            raise InvalidMessage(f"There is no memory left for region {region.name!r}.")


def open_region(account: int, name: str, request: RegisterRequest) -> Region:
    """Return a region of a file that an account shares.

    Args:
        account: Who has to own the file.
        name: The region's.
        request: Which part of which file.

    Raises:
        InvalidMessage: It is no shared memory, or too small.
        NotFound: There is no such file.
        NotPermitted: The file is another account's, or the agent may not read and write it.
    """
    region = Region(_open_file(request.key), name, request)
    about, key = os.fstat(region.descriptor), region.key
    if not stat.S_ISREG(about.st_mode):
        raise InvalidMessage(f"{key!r:.80} is no shared memory, but another kind of file.")
    if about.st_uid != account:
        raise NotPermitted(f"Shared memory {key!r:.80} belongs to another account than asks.")
    if about.st_size < region.offset + region.size_bytes:
        raise InvalidMessage(
            f"{key!r:.80} has {about.st_size} bytes; "
            f"the region would end at {region.offset + region.size_bytes}.",
            remedy="Make it as large before it is registered.",
        )
    return region


def _open_file(key: str) -> int:
    """Return the descriptor of a file in the folder of shared memory, and of nothing elsewhere."""
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in {".", ".."}:
        raise InvalidMessage(f"{key!r:.80} is no name of shared memory.", remedy="See shm_open(3).")
    # Without O_NONBLOCK its owner could keep us waiting, by a lease on it (fcntl(2)).
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        folder = os.open(FOLDER, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return os.open(name, flags, dir_fd=folder)
        finally:
            os.close(folder)
    except FileNotFoundError as error:
        raise NotFound(f"There is no shared memory {key!r:.80}.", remedy="Make it first.") from error
    except PermissionError as error:
        raise NotPermitted(
            f"The agent may not read and write {key!r:.80}.", remedy="Let its account do so: see chmod(2)."
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidMessage(f"{key!r:.80} is a symbolic link.") from error
        raise InvalidMessage(f"{key!r:.80} cannot be opened: {error.strerror}.") from error
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"{key!r:.80} is no name of shared memory.") from error
