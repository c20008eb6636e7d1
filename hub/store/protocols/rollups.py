"""Windows added up over minutes, hours and days, for each device and each cohort."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from hub.store.telemetry_rows import EVERY_DEVICE, RollupKey, RollupRow, SealedRollup


class RollupStore(Protocol):
    """Windows added up over time; every resolution holds every window that is within its retention."""

    def rollups(
        self,
        *,
        model: str,
        key: str = EVERY_DEVICE,
        values: Sequence[str] | None = None,
        version: int | None = None,
        start_s: float,
        end_s: float,
        resolution_s: int,
        profiles: bool = True,
    ) -> list[RollupRow]:
        """Return sums by start, value and version.

        Args:
            model: Name of the model.
            key: Of whom: ``all``, ``device``, or an attribute such as ``site``.
            values: Which devices, or which values of the attribute; None for all that there are.
            version: Only this one; None for every version.
            start_s: Only spans that begin at this time or later,
            end_s: and before this one.
            resolution_s: 60 (not for devices), 3,600 or 86,400.
            profiles: Whether the windows' profiles are read; without them it takes a tenth of the time.

        Raises:
            InvalidMessage: There are no sums of that resolution.
        """
        ...

    def sealed_rollups(self, which: Iterable[RollupKey]) -> dict[RollupKey, SealedRollup]:
        """Return those of the sums that there are, as they are stored."""
        ...

    def delete_rollups(self, *, duration_s: int, before_s: float, limit: int) -> int:
        """Forget sums of a resolution whose span ended before a time; return how many, at most ``limit``."""
        ...
