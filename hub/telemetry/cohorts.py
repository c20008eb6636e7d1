"""Which cohorts devices belong to, and which values are cohorts of their own, see `fleet.cohorts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fleet.cohorts import MOST_VALUES, OTHER, is_admitted
from hub.store.protocols import TelemetryStore
from hub.store.telemetry_rows import DAY_S, CohortValue


class Cohorts:
    """Tells cohorts. Values that are new are kept here until the step that met them is stored.

    Args:
        store: Knows devices, and the values so far.
        group_by: The hub's setting.
    """

    def __init__(self, store: TelemetryStore, group_by: Sequence[str]) -> None:
        self._store = store
        self._group_by = group_by
        self._brought: dict[str, dict[str, str]] = {}
        self._is_read = False
        self._last_s: dict[tuple[str, str], int] = {}
        self._changed: dict[tuple[str, str], CohortValue] = {}
        self.others: Counter[tuple[str]] = Counter()
        """How often devices counted as `OTHER` since the hub started, by attribute."""

    def of(self, device_ids: Sequence[str], now_s: float) -> Mapping[str, Mapping[str, str]]:
        """Return the cohorts of those of the devices that there are.

        Args:
            device_ids: The devices.
            now_s: When the newest of what they sent was received.
        """
        self._read_where_full()
        found = self._store.cohorts(device_ids, self._group_by)
        day_s = int(now_s // DAY_S) * DAY_S
        return {
            device_id: {
                key: value if self._counts(key, value, device_id, day_s) else OTHER
                for key, value in said.items()
            }
            for device_id, said in found.items()
        }

    def changed(self) -> list[CohortValue]:
        """Return the values that are to be stored with the step."""
        return list(self._changed.values())

    def stored(self) -> None:
        """Know that they were."""
        self._changed.clear()

    def _counts(self, key: str, value: str, device_id: str, day_s: int) -> bool:
        """Return whether a value is a cohort of its own, and note that it was heard of."""
        values = self._brought.setdefault(key, {})
        if not is_admitted(value, device_id, values):
            self.others[key,] += 1
            return False
        first = values.setdefault(value, device_id)
        if self._last_s.get((key, value), -1) < day_s:
            self._last_s[key, value] = day_s
            self._changed[key, value] = CohortValue(key, value, first, day_s)
        return True

    def _read_where_full(self) -> None:
        """Read the values, at first and where there is no room: some may be forgotten by now."""
        if self._is_read and all(len(values) < MOST_VALUES for values in self._brought.values()):
            return
        self._brought, self._is_read = {}, True
        for one in [*self._store.cohort_values(), *self._changed.values()]:
            self._brought.setdefault(one.key, {}).setdefault(one.value, one.device_id)
            self._last_s[one.key, one.value] = one.last_s
