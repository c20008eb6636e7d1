"""Bookkeeping of drift alarms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hub.store.rows import DriftRow


class DriftStore(Protocol):
    """Bookkeeping of drift alarms."""

    def drift_position(self) -> int:
        """Return how far drift has read the records."""
        ...

    def save_drift(self, position: int, rows: Sequence[DriftRow]) -> None:
        """Store the rows and the position that they include."""
        ...

    def drift(self, *, model: str | None = None, device_id: str | None = None) -> list[DriftRow]:
        """Return drift bookkeeping."""
        ...
