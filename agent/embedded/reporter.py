"""What an embedded model counted, on its way to the agent.

A window gets its id when it is first handed over, and is not changed from then on: the agent may have it,
although its answer did not come. Windows that were never handed over are merged when there are too many of
them, as in the agent's outbox, so that time without an agent costs resolution and no counts.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import msgspec

from agent.client.link import FastLink, LinkClosed
from agent.serving.fast_frames import Kind
from agent.telemetry.reception import ID_BYTES, pack_window
from fleet.protocol.errors import InvalidMessage, MusterError, StorageError, Unavailable
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import merge_windows

log = logging.getLogger(__name__)

MOST_WINDOWS = 64
TIMEOUT_S = 5.0


class Parcel(msgspec.Struct):
    """A window that the agent does not have for certain.

    Attributes:
        window: It.
        id: Given to it when it was first handed over; empty before.
    """

    window: TelemetryWindow
    id: bytes = b""


class Reporter:
    """Hands windows over to the agent. Used by one thread at a time.

    Args:
        path: Of the fast path's socket.
        limit: How many windows are kept while no agent takes them.
    """

    def __init__(self, path: Path, limit: int = MOST_WINDOWS) -> None:
        self._path = path
        self._limit = limit
        self._waiting: deque[Parcel] = deque()

    @property
    def waiting(self) -> tuple[TelemetryWindow, ...]:
        """The windows that the agent does not have for certain."""
        return tuple(parcel.window for parcel in self._waiting)

    def add(self, windows: Iterable[TelemetryWindow]) -> None:
        """Take windows to hand over; over the limit, merge the two oldest of one version that can be."""
        self._waiting.extend(map(Parcel, windows))
        while len(self._waiting) > self._limit and self._merge_oldest():
            pass
        while len(self._waiting) > self._limit:
            self._drop("there are too many that no agent took")

    def deliver(self) -> bool:
        """Hand over what waits, the oldest first; return whether nothing waits any more."""
        if not self._waiting:
            return True
        try:
            with closing(FastLink(self._path, TIMEOUT_S)) as link:
                while self._waiting:
                    self._hand_over(link)
        except (LinkClosed, Unavailable, StorageError, OSError) as error:
            log.info("Telemetry waits for the agent: %s", error)
            return False
        return True

    def _hand_over(self, link: FastLink) -> None:
        parcel = self._waiting[0]
        parcel.id = parcel.id or secrets.token_bytes(ID_BYTES)
        data = pack_window(parcel.id, parcel.window)
        try:
            link.exchange(Kind.WINDOW, parts=[data], data_bytes=len(data))
        except (Unavailable, StorageError):
            raise
        except MusterError as error:
            self._drop(str(error))
        else:
            self._waiting.popleft()

    def _drop(self, why: str) -> None:
        window = self._waiting.popleft().window
        log.warning(
            "What version %d of model %s did for %d prediction(s) is not reported: %s",
            *(window.version, window.model, window.predictions, why),
        )

    def _merge_oldest(self) -> bool:
        """Add the two oldest windows of one version that were never handed over; tell whether there were."""
        older: dict[tuple[str, str], Parcel] = {}
        for parcel in self._waiting:
            if parcel.id:
                continue
            first = older.setdefault((parcel.window.manifest_sha256, parcel.window.variant), parcel)
            if first is not parcel:
                try:
                    parcel.window = merge_windows(first.window, parcel.window)
                except InvalidMessage:  # cannot be: one reference profile has one layout
                    return False
                self._waiting.remove(first)
                return True
        return False
