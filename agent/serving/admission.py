"""How many local connections are held at once and how much of them, and which one goes when it is too much.

Every connection takes a file descriptor, and an agent without descriptors can neither answer nor write its
state down. So it holds a quarter of those it may have. When one more comes, the one that has been waited for
longest is ended: it sent nothing, or not all of a request, or does not take its answer. Nobody whose request
is being answered is ended, and nobody can keep others out by connecting often.

The same goes for memory: of requests that have not come whole and of answers that are not taken, all
connections together keep as much as so many of the largest requests would.
"""

from __future__ import annotations

import asyncio
import resource

MOST_CONNECTIONS = 256
MOST_REQUESTS = 16
"""How many of the largest requests all connections together may keep."""
QUEUE = 128
"""Connections that wait in the system to be accepted. A client that may not wait is turned away then."""
ACCEPTED_IN_A_ROW = 4
"""What asyncio shall take the queue's length for: it accepts so many before any of them can be looked at."""


def connection_limit() -> int:
    """Return how many connections may be held, by the limit of open files of this process."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, open_files // 4))


class Admission:
    """The connections that are held. Lives in the event loop.

    Args:
        request_limit_bytes: The largest request.
    """

    def __init__(self, request_limit_bytes: int) -> None:
        self._waited_for: dict[asyncio.WriteTransport, None] = {}  # the longest first
        self._answered: set[asyncio.WriteTransport] = set()
        self._kept_bytes: dict[asyncio.WriteTransport, int] = {}
        self._sum_bytes = 0
        self._limit_bytes = MOST_REQUESTS * request_limit_bytes

    def enter(self, connection: asyncio.WriteTransport) -> None:
        """Hold one more; end the one that was waited for longest if it is one too many."""
        self._waited_for[connection] = None
        if len(self._waited_for) + len(self._answered) > connection_limit():
            longest = next(iter(self._waited_for))
            del self._waited_for[longest]
            longest.abort()

    def leave(self, connection: asyncio.WriteTransport) -> None:
        """Forget one that has ended."""
        self._waited_for.pop(connection, None)
        self._answered.discard(connection)
        self._sum_bytes -= self._kept_bytes.pop(connection, 0)

    def keep(self, connection: asyncio.WriteTransport, size_bytes: int) -> None:
        """Note what one keeps now; end those that were waited for longest while several keep too much."""
        self._sum_bytes += size_bytes - self._kept_bytes.pop(connection, 0)
        if size_bytes:
            self._kept_bytes[connection] = size_bytes
        while self._sum_bytes > self._limit_bytes and len(self._kept_bytes) > 1:
            longest = next((each for each in self._waited_for if each in self._kept_bytes), None)
            if longest is None:
                return
            self.leave(longest)
            longest.abort()

    def touch(self, connection: asyncio.WriteTransport) -> None:
        """Note that one has been answered: what it is waited for begins now."""
        if connection in self._waited_for:
            del self._waited_for[connection]
            self._waited_for[connection] = None

    def begin_answer(self, connection: asyncio.WriteTransport) -> None:
        """Keep one from being ended until `end_answer`: its request is being answered."""
        self._waited_for.pop(connection, None)
        self._answered.add(connection)

    def end_answer(self, connection: asyncio.WriteTransport) -> None:
        """Wait for it again."""
        self._answered.discard(connection)
        self._waited_for[connection] = None
