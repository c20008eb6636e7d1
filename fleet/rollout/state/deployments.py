"""The deployments of a rollout: compact rows in pages, so that some change without copying the others.

::

    pages:    ( rows 0 … 31, rows 32 … 63, …  )        a deployment's index is its place
    members:  place → device id, device id → place     fixed, or extended at the end

All of it is immutable by contract: a step of the engine copies the pages in which something changes, once,
and shares the rest (`editing`), so that the old value stays what it was. Of a million devices one page
and the tuple of pages are 2 kB and 250 kB.

`Deployment` and `Attempt` are values made on demand for whoever looks at few devices; what concerns many is
asked of the columns, with `where`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import Cause
from fleet.rollout.state.columns import (
    KINDS,
    NO_VERSION,
    NOT_BACK,
    PAGE_SIZE,
    ROW,
    ROW_SIZE,
    Deployment,
    Page,
    Places,
    Row,
    Rows,
    kinds,
    pack,
    unpack,
)
from fleet.rollout.state.masks import Test
from fleet.rollout.state.members import Members

_BLOCK = 64
"""Pages that are looked through at a time."""


class Deployments:
    """All deployments of a rollout, see the head of this file.

    Args:
        number: Of the rollout.
        members: Its devices.
        pages: Their rows; all pages but the last are full.
    """

    __slots__ = ("members", "number", "pages")

    def __init__(self, number: int, members: Members, pages: tuple[Page, ...]) -> None:
        self.number, self.members, self.pages = number, members, pages

    @classmethod
    def of(cls, number: int, deployments: Iterable[Deployment]) -> Self:
        """Return deployments as they were stored.

        Args:
            number: Of the rollout.
            deployments: In ascending order of index, from 0, without gaps.
        """
        device_ids: list[str] = []
        pages: list[Page] = []
        rows: list[Row] = []
        causes: list[Cause] = []
        for deployment in deployments:
            device_ids.append(deployment.device_id)
            rows.append(pack(deployment, causes))
            if len(rows) == PAGE_SIZE:
                pages.append(Page(np.array(rows, dtype=ROW).tobytes(), tuple(causes)))
                rows, causes = [], []
        if rows:
            pages.append(Page(np.array(rows, dtype=ROW).tobytes(), tuple(causes)))
        return cls(number, Members.of(device_ids), tuple(pages))

    @classmethod
    def queued(
        cls,
        number: int,
        devices: Mapping[str, int | None],
        stages: NDArray[np.uint8],
        now_s: float,
        strata: NDArray[np.uint16] | None = None,
    ) -> Self:
        """Return deployments of which none was ordered.

        Args:
            number: Of the rollout.
            devices: What each runs now, None for no version; in the rollout's order.
            stages: That reach them, shape (n,).
            now_s: Hub time.
            strata: Of the devices, shape (n,); None for one that all are in.
        """
        rows = waiting_rows(list(devices.values()), stages, now_s, strata)
        return cls(number, Members.of(devices), pages_of(rows))

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Deployment]:
        return self.at(np.arange(len(self)))

    def __getitem__(self, index: int) -> Deployment:
        if not 0 <= index < len(self):
            raise IndexError(index)
        page = self.pages[index // PAGE_SIZE]
        row = Row._make(page.rows.item(index % PAGE_SIZE))
        return unpack(self.number, index, self.members.device_id(index), row, page.causes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Deployments):
            return NotImplemented
        same = self.number == other.number and self.members == other.members
        return self is other or (same and all(a == b for a, b in zip(self, other, strict=True)))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} deployments of rollout {self.number}>"

    def at(self, places: Places) -> Iterator[Deployment]:
        """Yield the deployments at ascending places."""
        device_ids = iter(self.members.device_ids(places))
        for number, inside in split(places):
            page, first = self.pages[number], number * PAGE_SIZE
            for place, values in zip(inside.tolist(), page.rows[inside].tolist(), strict=True):
                row = Row._make(values)
                yield unpack(self.number, first + place, next(device_ids), row, page.causes)

    def of_device(self, device_id: str) -> Deployment | None:
        """Return the device's deployment; None if the device is not of this rollout."""
        index = self.members.place(device_id)
        return None if index is None else self[index]

    def where(self, test: Test, *, limit: int | None = None) -> Iterator[Deployment]:
        """Yield the deployments whose rows pass a test, the first ones if there is a limit."""
        return self.at(scan(self.pages, test, limit=limit))

    def least(self, column: str) -> float | None:
        """Return the least value of a column; None if all are NaN."""
        return least(self.pages, column)

    def plus(self, device_ids: Sequence[str], rows: Rows) -> Deployments:
        """Return these deployments and others after them; the rows have no causes."""
        full, rest = divmod(len(self), PAGE_SIZE)
        pages = self.pages[:full]
        if rest:
            last, more = self.pages[full], PAGE_SIZE - rest
            pages, rows = (*pages, Page(last.data + rows[:more].tobytes(), last.causes)), rows[more:]
        return Deployments(self.number, self.members.plus(device_ids), (*pages, *pages_of(rows)))

    def tally(self, stages: int) -> NDArray[np.int64]:
        """Count the devices by stage and `fleet.rollout.state.columns.kinds`; shape (stages, KINDS)."""
        counts = np.zeros(stages * KINDS, dtype=np.int64)
        for _, rows in blocks(self.pages):
            cells = rows["stage"].astype(np.intp) * KINDS + kinds(rows)
            counts += np.bincount(cells, minlength=len(counts))
        return counts.reshape(stages, KINDS)

    def previous_versions(self) -> dict[int, int]:
        """Count the devices by the version that they ran before, without those that ran none."""
        found: Counter[int] = Counter()
        for _, rows in blocks(self.pages):
            versions, counts = np.unique(rows["previous_version"], return_counts=True)
            found.update(dict(zip(versions.tolist(), counts.tolist(), strict=True)))
        found.pop(NO_VERSION, None)
        return dict(found)

    def changed_since(self, before: Deployments | None) -> Places:
        """Return the places at which these differ from what they were.

        Args:
            before: What these were made from, step by step; None for nothing.
        """
        if before is None or not self.members.extends(before.members):
            return np.arange(len(self))
        found = []
        for number, page in enumerate(self.pages):
            old = before.pages[number].data if number < len(before.pages) else b""
            if old is not page.data:
                differs = np.ones(len(page.data) // ROW_SIZE, dtype=bool)
                differs[: len(old) // ROW_SIZE] = (_bytes(page.data[: len(old)]) != _bytes(old)).any(axis=1)
                found.append(number * PAGE_SIZE + np.flatnonzero(differs))
        return np.concatenate(found) if found else np.arange(0)

    @property
    def size_bytes(self) -> int:
        """How much memory the rows and the members take, without causes."""
        return self.members.size_bytes + sum(len(page.data) for page in self.pages)


def waiting_rows(
    versions: Sequence[int | None],
    stages: NDArray[np.uint8],
    now_s: float,
    strata: NDArray[np.uint16] | None = None,
) -> Rows:
    """Return rows of devices that wait for their order.

    Args:
        versions: What each of n devices runs, None for no version.
        stages: The stage of each, from 0, shape (n,).
        now_s: Since when they wait, Unix seconds.
        strata: The place of each one's stratum among the rollout's, shape (n,); None for the first.
    """
    rows = np.zeros(len(versions), dtype=ROW)
    rows["stage"] = stages
    rows["stratum"] = 0 if strata is None else strata
    rows["back_state"], rows["counted_in"] = NOT_BACK, -1
    rows["previous_version"] = [NO_VERSION if version is None else version for version in versions]
    rows["since_s"] = now_s
    for name in ("ordered_s", "back_since_s", "back_ordered_s", "answers_since_s", "due_s"):
        rows[name] = np.nan
    return rows


def pages_of(rows: Rows) -> tuple[Page, ...]:
    """Return rows without causes in pages."""
    return tuple(Page(rows[i : i + PAGE_SIZE].tobytes(), ()) for i in range(0, len(rows), PAGE_SIZE))


def split(places: Places) -> Iterator[tuple[int, Places]]:
    """Yield, for each page that has some of the ascending places, its number and the places in it."""
    if len(places) == 0:
        return
    numbers, inside = np.divmod(places, PAGE_SIZE)
    cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(places)]
    of_cuts = numbers[cuts[:-1]].tolist()
    for number, start, end in zip(of_cuts, cuts[:-1], cuts[1:], strict=True):
        yield number, inside[start:end]


def blocks(pages: Sequence[Page], start: int = 0) -> Iterator[tuple[int, Rows]]:
    """Yield the rows of some pages at a time, and the place of the first: many are asked as fast as few.

    Args:
        pages: All pages.
        start: The first page of them.
    """
    for number in range(start, len(pages), _BLOCK):
        data = b"".join([page.data for page in pages[number : number + _BLOCK]])
        yield number * PAGE_SIZE, np.frombuffer(data, ROW)


def least(pages: Sequence[Page], column: str) -> float | None:
    """Return the least value of a column of some pages; None if all are NaN."""
    found = float(np.fmin.reduce([np.fmin.reduce(rows[column]) for _, rows in blocks(pages)], initial=np.nan))
    return None if math.isnan(found) else found


def scan(pages: Sequence[Page], test: Test, *, start: int = 0, limit: int | None = None) -> Places:
    """Return the places of the rows that pass a test, ascending.

    Args:
        pages: All pages.
        test: Tells it for many rows at once.
        start: The first place that is looked at.
        limit: Most places; None for all.
    """
    found: list[Places] = []
    count = 0
    for first, rows in blocks(pages, start // PAGE_SIZE):
        places = first + np.flatnonzero(test(rows))
        if first < start:
            places = places[places >= start]
        if len(places):
            found.append(places)
            count += len(places)
        if limit is not None and count >= limit:
            break
    return np.concatenate(found)[:limit] if found else np.arange(0)


def _bytes(data: bytes | bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(-1, ROW_SIZE)
