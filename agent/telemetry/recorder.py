"""What the device counted, into its outbox, also where the disk does not let it: then it is lost, and logged.

Models go on answering whatever becomes of their counts; so nothing here raises.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from agent.life.footprint import measure_own_bytes
from agent.telemetry.outbox import Counts, Outbox
from fleet.protocol.errors import InferenceFailed, MusterError, StorageError
from fleet.protocol.memory import bucket_of_bytes
from fleet.protocol.records import ShadowReport, TelemetryWindow

log = logging.getLogger(__name__)


class Recorder:
    """Keeps telemetry windows and reports of shadows for the hub.

    Args:
        outbox: Where they go.
        close_windows: Given Unix time, ends the windows and returns those in which anything happened.
        wake: Called when there may be something to send.
        on_incident: Told of what a person may have to know.
    """

    def __init__(
        self,
        outbox: Outbox,
        close_windows: Callable[[float], Sequence[TelemetryWindow]],
        *,
        wake: Callable[[], None],
        on_incident: Callable[[MusterError], None],
    ) -> None:
        self._outbox = outbox
        self._close_windows = close_windows
        self._wake = wake
        self._on_incident = on_incident
        self._told_damage: MusterError | None = None

    async def keep_recording(self, interval_s: float) -> None:
        """Close the windows again and again.

        Args:
            interval_s: Length of a window.
        """
        while True:
            await asyncio.sleep(interval_s)
            self.tell_damage()
            self.keep_windows()
            self._wake()

    def keep_windows(self) -> None:
        """Close the windows now, and keep them."""
        windows = self._close_windows(time.time())
        own_bytes = measure_own_bytes()
        for window in windows:
            if own_bytes > 0:
                window.memory = {bucket_of_bytes(own_bytes): 1}
            if window.errors and not window.predictions:  # it hangs, or fails whatever it is asked
                told = f"Version {window.version} of model {window.model} answered no request of a window"
                number = "some" if self._outbox.is_noised else window.errors
                self._on_incident(InferenceFailed(f"{told}: {number} failed or did not end in time."))
        if windows:
            try:
                self._outbox.put(*windows)
            except StorageError as error:
                log.warning("Telemetry is lost: %s", error)

    def keep_report(self, report: ShadowReport) -> None:
        """Keep a report of a shadow."""
        try:
            self._outbox.put(report)
        except StorageError as error:
            log.warning("A report of a shadow is lost: %s", error)
        self._wake()

    def tell_damage(self) -> None:
        """Tell of a damaged outbox, whenever it was found."""
        damage = self._outbox.damage
        if damage is not None and damage is not self._told_damage:
            self._told_damage = damage
            self._on_incident(damage)

    def waiting_records(self) -> int:
        """Return how many records wait; 0 while the outbox cannot be read."""
        try:
            return len(self._outbox)
        except StorageError as error:
            log.warning("%s", error)
            return 0

    def counts(self) -> Counts | None:
        """Return what the outbox holds; None while it cannot be read."""
        try:
            return self._outbox.counts()
        except StorageError as error:
            log.warning("%s", error)
            return None
