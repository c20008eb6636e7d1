"""Counts of state rows: how many devices are alike, changed by the difference whenever a state row changes.

::

    device_counts   (cohort, status)                                       → devices
    model_counts    (model, cohort, status, version, as desired, drifting) → devices, predictions, errors

A cohort, here, is a number for one combination of traits (``{"hardware": "pi4", "site": "lyon"}``): there are
as many as combinations occur, far fewer than devices. A version of `NONE` stands for none.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

NONE = -1

_ENCODER = msgspec.json.Encoder(order="sorted")


class DeviceKey(NamedTuple):
    """Devices that are alike."""

    cohort: int
    status: str


class ModelKey(NamedTuple):
    """Devices on which a model is alike."""

    model: str
    cohort: int
    status: str
    version: int
    as_desired: int
    drifting: int


class Difference:
    """What a batch of changes does to the counts."""

    def __init__(self) -> None:
        self._devices: Counter[DeviceKey] = Counter()
        self._models: dict[ModelKey, list[int]] = {}

    def device(self, key: DeviceKey, sign: int) -> None:
        """Add a device, or with a sign of -1 take one away."""
        self._devices[key] += sign

    def model(self, key: ModelKey, predictions: int, errors: int, sign: int) -> None:
        """Add a model on a device, or with a sign of -1 take one away."""
        sums = self._models.setdefault(key, [0, 0, 0])
        for index, number in enumerate((1, predictions, errors)):
            sums[index] += sign * number

    def write(self, connection: sqlite3.Connection) -> None:
        """Change the counts, in the caller's transaction."""
        devices = [(*key, number) for key, number in self._devices.items() if number]
        models = [(*key, *sums) for key, sums in self._models.items() if any(sums)]
        connection.executemany(
            "INSERT INTO device_counts (cohort, status, devices) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET devices = devices + excluded.devices",
            devices,
        )
        connection.executemany(
            "INSERT INTO model_counts (model, cohort, status, version, as_desired, drifting,"
            " devices, predictions, errors) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET devices = devices + excluded.devices,"
            " predictions = predictions + excluded.predictions, errors = errors + excluded.errors",
            models,
        )
        connection.executemany(
            "DELETE FROM device_counts WHERE cohort = ? AND status = ? AND devices = 0",
            [row[:2] for row in devices],
        )
        connection.executemany(
            "DELETE FROM model_counts WHERE model = ? AND cohort = ? AND status = ? AND version = ?"
            " AND as_desired = ? AND drifting = ? AND devices = 0",
            [row[:6] for row in models],
        )


def cohort_numbers(connection: sqlite3.Connection, wanted: Iterable[dict[str, str]]) -> dict[str, int]:
    """Return the number of each combination of traits, by `traits_text`; those that are new get one."""
    numbers: dict[str, int] = {}
    for cohorts in wanted:
        text = traits_text(cohorts)
        if text not in numbers:
            numbers[text] = _cohort_number(connection, text, cohorts)
    return numbers


def traits_text(cohorts: dict[str, str]) -> str:
    """Return a combination of traits as one text, the same for the same traits."""
    return _ENCODER.encode(cohorts).decode()


def _cohort_number(connection: sqlite3.Connection, text: str, cohorts: dict[str, str]) -> int:
    row = connection.execute("SELECT cohort FROM cohorts WHERE traits = ?", (text,)).fetchone()
    if row is not None:
        return int(row[0])
    number = connection.execute("INSERT INTO cohorts (traits) VALUES (?)", (text,)).lastrowid
    assert number is not None
    connection.executemany(
        "INSERT INTO cohort_traits (attribute, cohort, value) VALUES (?, ?, ?)",
        [(attribute, number, value) for attribute, value in cohorts.items()],
    )
    return number
