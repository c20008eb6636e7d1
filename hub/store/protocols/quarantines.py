"""Devices of which nothing is taken for a while, because they said too much."""

from __future__ import annotations

from typing import Protocol

from fleet.protocol.errors import Cause
from hub.store.rows import QuarantineRow


class QuarantineStore(Protocol):
    """Devices of which nothing is taken for a while; a row may be over, and stays until the next begins."""

    def begin_quarantine(self, quarantine: QuarantineRow, cause: Cause) -> None:
        """Remember a quarantine in place of the device's last, and an incident with its cause."""
        ...

    def end_quarantine(self, device_id: str) -> None:
        """Forget a device's quarantine, if there is one."""
        ...

    def quarantines(self, *, device_id: str | None = None) -> list[QuarantineRow]:
        """Return the quarantines of all devices, or of one, by device."""
        ...
