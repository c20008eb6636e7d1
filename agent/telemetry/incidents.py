"""Incidents: what a person may have to know, said once and not a thousand times.

Somebody who floods a device with forged messages must not fill its outbox: of each code one incident is
kept a minute, and the next one says how many were left out.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable

from agent.telemetry.outbox import Outbox
from fleet.protocol.errors import Cause, MusterError, StorageError
from fleet.protocol.records import Incident

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
RECENT = 16
MAX_DETAIL_LENGTH = 1000


class Incidents:
    """Keeps incidents in the outbox, rate-limited by code.

    Args:
        outbox: Where they go.
        clock: Gives Unix time.
    """

    def __init__(self, outbox: Outbox, clock: Callable[[], float]) -> None:
        self._outbox = outbox
        self._clock = clock
        self._last_s: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()
        self.recent: deque[Incident] = deque(maxlen=RECENT)
        """The last of them, also of those that could not be kept."""

    def report(self, error: MusterError) -> None:
        """Keep an incident about an error; never raises, for it is called while handling one."""
        now_s, code = self._clock(), error.code
        log.warning("Incident %s: %s", code, error)
        if abs(now_s - self._last_s.get(code, -INTERVAL_S)) < INTERVAL_S:
            self._left_out[code] += 1
            return
        left_out = self._left_out.pop(code, 0)
        detail = str(error)[:MAX_DETAIL_LENGTH] + (f" ({left_out} more like it before.)" if left_out else "")
        incident = Incident(now_s, Cause(code, detail))
        self.recent.append(incident)
        try:
            self._outbox.put(incident)
        except StorageError as full:
            self._left_out[code] = left_out + 1
            log.warning("The incident could not be kept: %s", full)
        else:
            self._last_s[code] = now_s
