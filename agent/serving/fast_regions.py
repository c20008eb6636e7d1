"""Memory that a client of the fast path shares with the agent: regions, by number, of one connection.

The client makes a file in memory (``memfd_create``) and passes its descriptor; it has no name that another
process could guess or leave behind. It has to be sealed against shrinking: reading a page that its owner has
taken away again would end the agent by SIGBUS. So would reading a huge page that was punched out of the file
when there is none left, and a file that can be written can be punched; so huge pages are refused. Each is
mapped once.

Source: memfd_create(2), fcntl(2) "File Sealing", fallocate(2), hugetlbpage.rst of the Linux kernel.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from fleet.protocol.errors import InvalidMessage, MessageTooLarge, NotFound

MAX_REGIONS = 16


class Regions:
    """The regions of one connection.

    Args:
        limit_bytes: How large one may be.
        are_trusted: Whether the client does not write there while the agent reads.
    """

    def __init__(self, limit_bytes: int, *, are_trusted: bool) -> None:
        self.are_trusted = are_trusted
        self._limit_bytes = limit_bytes
        self._mapped: dict[int, mmap.mmap] = {}
        self._last = 0

    def map(self, descriptor: int) -> tuple[int, int]:
        """Map what a client passed; return its number, which is never used again, and its size in bytes.

        Args:
            descriptor: Of the file; it can be closed afterwards.

        Raises:
            InvalidMessage: It cannot be mapped, or could shrink.
            MessageTooLarge: It is too large, or there are too many.
        """
        if len(self._mapped) >= MAX_REGIONS:
            raise MessageTooLarge(f"A connection may have {MAX_REGIONS} regions.", remedy="Give one back.")
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            size_bytes = os.fstat(descriptor).st_size
            page_bytes = os.fstatvfs(descriptor).f_bsize
        except OSError as error:
            raise InvalidMessage("What was passed is no file in memory: see memfd_create(2).") from error
        if not seals & fcntl.F_SEAL_SHRINK:
            raise InvalidMessage("The file in memory has to be sealed against shrinking (F_SEAL_SHRINK).")
        if page_bytes != mmap.PAGESIZE:
            raise InvalidMessage("The file in memory has huge pages (MFD_HUGETLB).")
        if size_bytes > self._limit_bytes:
            raise MessageTooLarge(
                f"The region has {size_bytes} bytes; {self._limit_bytes} are the most.",
                remedy="request_limit_bytes is the setting.",
            )
        try:
            mapped = mmap.mmap(descriptor, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, ValueError) as error:  # it is empty, or cannot be written
            raise InvalidMessage(f"The region cannot be mapped: {error}.") from error
        self._last += 1
        self._mapped[self._last] = mapped
        return self._last, size_bytes

    def give_back(self, number: int) -> None:
        """Let go of a region.

        Raises:
            NotFound: There is none with that number.
        """
        if self._mapped.pop(number, None) is None:
            raise NotFound(f"This connection has no region {number}.")

    def part(self, number: int, offset: int, size_bytes: int) -> mmap.mmap:
        """Return a region that holds the given part.

        Raises:
            InvalidMessage: It is not there.
        """
        mapped = self._mapped.get(number)
        if mapped is None:
            raise InvalidMessage(f"This connection has no region {number}.")
        if offset + size_bytes > len(mapped):
            raise InvalidMessage(
                f"Region {number} has {len(mapped)} bytes; {offset} and {size_bytes} are more."
            )
        return mapped

    def clear(self) -> None:
        """Let go of all."""
        self._mapped.clear()
