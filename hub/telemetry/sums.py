"""From windows to the sums that are stored: of each device, each cohort and all devices, over time.

Everything is adding up rows. The windows of a step are added up first, by device and hour, and by cohort and
minute; larger sums are made of smaller ones. What is stored under the same keys is then read, put beside them
as more rows, and added.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.distinct import NOBODY, heard_of, merge_heard
from fleet.drift.matrix import Groups
from fleet.protocol.records import SealedWindow
from fleet.protocol.window_table import Bundle, WindowTable, read_windows
from hub.store.telemetry_rows import (
    DAY_S,
    EVERY_DEVICE,
    HOUR_S,
    MINUTE_S,
    ONE_DEVICE,
    RollupKey,
    SealedRollup,
    VersionKey,
)
from hub.telemetry.reading import Counted

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Other = TypeVar("Other", bound=Hashable)

Traits = tuple[tuple[str, str], ...]
"""The cohorts of a device: the attributes that it is grouped by, and its value of each."""

_ENCODER = msgspec.msgpack.Encoder()
_WINDOWS = msgspec.msgpack.Decoder(SealedWindow)


class _Span(NamedTuple):
    """A subject and when its span begins."""

    key: str
    value: str
    start_s: int


class Sums(NamedTuple, Generic[Key]):
    """Sums by key.

    Attributes:
        keys: Of each row, all different.
        table: The sums.
        windows: How many windows each is of, shape (N,).
        heard: Of which devices, see `fleet.distinct`.
    """

    keys: list[Key]
    table: WindowTable
    windows: NDArray[np.int64]
    heard: list[bytes]

    def by(self, key: Callable[[Key], Other]) -> Sums[Other]:
        """Return sums by another key, which the key tells."""
        return _summed(self, [key(each) for each in self.keys])

    def only(self, rows: Sequence[int]) -> Sums[Key]:
        """Return some of the sums."""
        chosen = np.array(rows, dtype=np.intp)
        return Sums(
            [self.keys[row] for row in rows],
            self.table.rows(chosen),
            self.windows[chosen],
            [self.heard[row] for row in rows],
        )

    def bodies(self) -> list[bytes]:
        """Return the sums as they are stored."""
        return [_ENCODER.encode(window) for window in self.table.sealed()]


def device_hours(counted: Counted) -> Sums[_Span]:
    """Return windows added up by device and hour."""
    ends_s = counted.table.ended_at_s.tolist()
    return _added_up(
        counted,
        [
            _Span(ONE_DEVICE, device_id, _begun(end_s, HOUR_S))
            for device_id, end_s in zip(counted.devices, ends_s, strict=True)
        ],
        heard=False,
    )


def cohort_minutes(counted: Counted, cohorts: Mapping[str, Mapping[str, str]]) -> Sums[_Span]:
    """Return windows added up by cohort and minute.

    Args:
        counted: The windows.
        cohorts: Of each device.
    """
    traits = {device_id: tuple(sorted(values.items())) for device_id, values in cohorts.items()}
    ends_s = counted.table.ended_at_s.tolist()
    alike = _added_up(
        counted,
        [
            (traits.get(device_id, ()), _begun(end_s, MINUTE_S))
            for device_id, end_s in zip(counted.devices, ends_s, strict=True)
        ],
        heard=True,
    )
    parts = [alike.by(lambda at: _Span(EVERY_DEVICE, "", at[1]))]
    for name in sorted({name for values in traits.values() for name, _ in values}):
        having = [row for row, (values, _) in enumerate(alike.keys) if name in dict(values)]
        if having:
            parts.append(_summed(alike.only(having), [_of_cohort(name, alike.keys[row]) for row in having]))
    return _stacked(parts)


def _of_cohort(name: str, at: tuple[Traits, int]) -> _Span:
    return _Span(name, dict(at[0])[name], at[1])


def longer(sums: Sums[_Span], duration_s: int) -> Sums[_Span]:
    """Return sums over longer spans, made of shorter ones."""
    return sums.by(lambda span: span._replace(start_s=_begun(span.start_s, duration_s)))


def rollup_keys(sums: Sums[_Span], duration_s: int) -> Sums[RollupKey]:
    """Return the same sums with the keys under which they are stored."""
    bundle = sums.table.bundle
    return sums.by(
        lambda span: RollupKey(span.key, span.value, bundle.model, bundle.version, duration_s, span.start_s)
    )


def rollups(counted: Counted, cohorts: Mapping[str, Mapping[str, str]]) -> list[Sums[RollupKey]]:
    """Return all sums over time that windows change."""
    minutes, hours = cohort_minutes(counted, cohorts), device_hours(counted)
    cohort_hours = longer(minutes, HOUR_S)
    return [
        rollup_keys(minutes, MINUTE_S),
        rollup_keys(_stacked([cohort_hours, hours]), HOUR_S),
        rollup_keys(_stacked([longer(cohort_hours, DAY_S), longer(hours, DAY_S)]), DAY_S),
    ]


def with_stored(sums: Sums[RollupKey], stored: Mapping[RollupKey, SealedRollup]) -> list[SealedRollup]:
    """Return sums over time together with what is stored of them."""
    known = [stored[key] for key in sums.keys if key in stored]
    before = Sums(
        [rollup.which for rollup in known],
        _read([rollup.body for rollup in known], sums.table.bundle),
        np.array([rollup.windows for rollup in known], dtype=np.int64),
        [rollup.heard for rollup in known],
    )
    after = _within_bounds(_summed(_stacked([before, sums]), [*before.keys, *sums.keys]))
    return [
        SealedRollup(key, int(windows), heard, body)
        for key, windows, heard, body in zip(
            after.keys, after.windows, after.heard, after.bodies(), strict=True
        )
    ]


def by_device(hours: Sums[_Span]) -> Sums[VersionKey]:
    """Return sums of each device, over all of a step."""
    bundle = hours.table.bundle
    return hours.by(lambda span: (span.value, bundle.model, bundle.version))


def with_bodies(sums: Sums[Key], stored: Mapping[Key, bytes]) -> Sums[Key]:
    """Return sums together with what is stored of them."""
    keys = [key for key in sums.keys if key in stored]
    before = _read([stored[key] for key in keys], sums.table.bundle)
    zeros = np.zeros(len(keys), dtype=np.int64)
    whole = _stacked([Sums(keys, before, zeros, [NOBODY] * len(keys)), sums])
    return _within_bounds(_summed(whole, whole.keys))


def _added_up(counted: Counted, keys: Sequence[Key], *, heard: bool) -> Sums[Key]:
    """Return windows added up by key."""
    ones = np.ones(len(keys), dtype=np.int64)
    numbers, distinct = _numbered(keys)
    groups = Groups(numbers)
    sets = [NOBODY] * len(distinct)
    if heard:
        devices: list[set[str]] = [set() for _ in distinct]
        for number, device_id in zip(numbers.tolist(), counted.devices, strict=True):
            devices[number].add(device_id)
        sets = [heard_of(names) for names in devices]
    return Sums(distinct, counted.table.summed(groups), groups.sum(ones), sets)


def _summed(sums: Sums[Other], keys: Sequence[Key]) -> Sums[Key]:
    """Return sums by other keys, one given for each row."""
    numbers, distinct = _numbered(keys)
    groups = Groups(numbers)
    if groups.is_single:  # nothing is added
        return Sums(distinct, sums.table, sums.windows, sums.heard)
    heard: list[list[bytes]] = [[] for _ in distinct]
    for number, each in zip(numbers.tolist(), sums.heard, strict=True):
        heard[number].append(each)
    return Sums(
        distinct, sums.table.summed(groups), groups.sum(sums.windows), [merge_heard(sets) for sets in heard]
    )


def _stacked(parts: Sequence[Sums[Key]]) -> Sums[Key]:
    return Sums(
        [key for part in parts for key in part.keys],
        WindowTable.stacked([part.table for part in parts]),
        np.concatenate([part.windows for part in parts]),
        [heard for part in parts for heard in part.heard],
    )


def _numbered(keys: Iterable[Key]) -> tuple[NDArray[np.intp], list[Key]]:
    """Return the number of each key among the different ones, in the order in which they come."""
    numbers: dict[Key, int] = {}
    of_row = [numbers.setdefault(key, len(numbers)) for key in keys]
    return np.array(of_row, dtype=np.intp), list(numbers)


def _read(bodies: Sequence[bytes], bundle: Bundle) -> WindowTable:
    table, damaged = read_windows([_WINDOWS.decode(body) for body in bodies], bundle)
    for error in damaged.values():
        log.error("A stored sum of %s version %d begins anew: %s", bundle.model, bundle.version, error)
    return table


def _within_bounds(sums: Sums[Key]) -> Sums[Key]:
    """Leave out sums that could not be read again; what is stored of them stays as it is."""
    too_large = sums.table.too_large()
    if not too_large.any():
        return sums
    log.warning("%d sums are too large to be added to.", int(too_large.sum()))
    return sums.only(np.flatnonzero(~too_large).tolist())


def _begun(at_s: float, duration_s: int) -> int:
    return int(at_s // duration_s) * duration_s
