"""Counts of state rows: how many devices are alike, changed by the difference whenever a state row changes.

::

    trait_counts    (attribute, model, value, status)                → devices
    version_counts  (model, version, status, as desired, drifting)   → devices, predictions, errors

A device counts once for each attribute that devices are grouped by, with an empty value where it has none,
and once for all devices, whose attribute is empty. All that counts once for the fleet, whose model is empty,
and once for each model that the device runs or should. So there are as many counts as values, however many
devices there are, and however many combinations. A version of `NONE` stands for none.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

NONE = -1
EVERY_DEVICE = EVERY_MODEL = ""


class VersionKey(NamedTuple):
    """Devices on which a model is alike."""

    model: str
    version: int
    status: str
    as_desired: int
    drifting: int


class Difference:
    """What a batch of changes does to the counts."""

    def __init__(self) -> None:
        self._traits: Counter[tuple[str, str, str, str]] = Counter()
        self._versions: dict[VersionKey, list[int]] = {}

    def device(self, traits: Mapping[str, str], models: Iterable[str], status: str, sign: int) -> None:
        """Add a device, or with a sign of -1 take one away.

        Args:
            traits: Its value of each attribute that devices are grouped by; empty for none.
            models: What it runs or should.
            status: Its health.
            sign: 1 or -1.
        """
        for model in (EVERY_MODEL, *models):
            self._traits[EVERY_DEVICE, model, "", status] += sign
            for attribute, value in traits.items():
                self._traits[attribute, model, value, status] += sign

    def version(self, key: VersionKey, predictions: int, errors: int, sign: int) -> None:
        """Add a model on a device, or with a sign of -1 take one away."""
        sums = self._versions.get(key)
        if sums is None:
            sums = self._versions[key] = [0, 0, 0]
        sums[0] += sign
        sums[1] += sign * predictions
        sums[2] += sign * errors

    def write(self, connection: sqlite3.Connection) -> None:
        """Change the counts, in the caller's transaction."""
        traits = [(*key, number) for key, number in self._traits.items() if number]
        versions = [(*key, *sums) for key, sums in self._versions.items() if any(sums)]
        connection.executemany(
            "INSERT INTO trait_counts (attribute, model, value, status, devices) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET devices = devices + excluded.devices",
            traits,
        )
        connection.executemany(
            "INSERT INTO version_counts (model, version, status, as_desired, drifting,"
            " devices, predictions, errors) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET devices = devices + excluded.devices,"
            " predictions = predictions + excluded.predictions, errors = errors + excluded.errors",
            versions,
        )
        connection.executemany(
            "DELETE FROM trait_counts WHERE attribute = ? AND model = ? AND value = ? AND status = ?"
            " AND devices = 0",
            [key for key, number in self._traits.items() if number < 0],
        )
        connection.executemany(
            "DELETE FROM version_counts WHERE model = ? AND version = ? AND status = ?"
            " AND as_desired = ? AND drifting = ? AND devices = 0",
            [key for key, sums in self._versions.items() if sums[0] < 0],
        )
