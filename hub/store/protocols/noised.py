"""Sums of noised windows, see `fleet.privacy.sums`: apart from all others, so that none counts as exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fleet.privacy.sums import NoisedSum
from hub.store.telemetry_rows import NoisedKey


class NoisedStore(Protocol):
    """What devices with noise on their counts sent; a step of the telemetry pass writes it."""

    def noised_of(self, which: Iterable[NoisedKey]) -> dict[NoisedKey, NoisedSum]:
        """Return those of the sums that there are."""
        ...

    def noised_sums(self, model: str, *, start_s: float, end_s: float) -> dict[NoisedKey, NoisedSum]:
        """Return the sums of a model over the days that begin in a span of time, by version and day."""
        ...

    def forget_noised(self, *, before_s: float, limit: int) -> int:
        """Forget sums of days that ended before a time; return how many."""
        ...
