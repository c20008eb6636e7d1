"""Deployments as they are becoming during one step: pages are copied when they are first written to.

Beside the rows it keeps their tally, by difference, so that nobody ever has to count a fleet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import Cause
from fleet.rollout.state.columns import (
    KINDS,
    PAGE_SIZE,
    ROW,
    ROW_SIZE,
    Deployment,
    Page,
    Places,
    Row,
    Rows,
    cause_number,
    kinds,
    pack,
    unpack,
)
from fleet.rollout.state.deployments import Deployments, least, scan, split
from fleet.rollout.state.masks import Test

assert ROW.fields is not None
_COUNTED_IN = ROW.fields["counted_in"][1]
"""Where the only column of a row that is written alone stands: one byte."""


class Editing:
    """A working copy of deployments.

    Args:
        deployments: They stay as they are.
        tally: Of the deployments, see `Deployments.tally`; it stays as it is.
    """

    def __init__(self, deployments: Deployments, tally: tuple[tuple[int, ...], ...]) -> None:
        self.members = deployments.members
        self._before = deployments
        self._open: dict[int, bytearray] = {}
        self._causes: dict[int, tuple[Cause, ...]] = {}
        self._tally_before = tally
        self._tally: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.members)

    @property
    def tally(self) -> tuple[tuple[int, ...], ...]:
        """Devices by stage and kind, as the step has left them so far."""
        if self._tally is None:
            return self._tally_before
        return tuple(tuple(counts) for counts in self._tally)

    def get(self, index: int) -> Deployment:
        """Return a deployment as the step has left it so far."""
        number, place = divmod(index, PAGE_SIZE)
        page = self._page(number)
        row = Row._make(page.rows.item(place))
        return unpack(self._before.number, index, self.members.device_id(index), row, page.causes)

    def rows(self, places: Places) -> Rows:
        """Return a copy of the rows at places, in any order."""
        pages, opened = self._before.pages, self._open
        each = _addresses(places)
        found = [(opened.get(number) or pages[number].data)[at : at + ROW_SIZE] for number, at in each]
        return np.frombuffer(bytearray().join(found), ROW)

    def put_rows(self, places: Places, before: Rows, after: Rows) -> None:
        """Exchange the rows at ascending places for their next values; causes are of their pages."""
        self._write(places, after)
        self._recount(after["stage"], kinds(before), kinds(after))

    def note_counted(self, places: Places, stage: int) -> None:
        """Note that telemetry of the devices was counted in a stage; no tally tells these apart."""
        for number, at in _addresses(places):
            self._writable(number)[at + _COUNTED_IN] = stage

    def put(self, deployment: Deployment) -> None:
        """Exchange a deployment for its next value."""
        number, place = divmod(deployment.index, PAGE_SIZE)
        rows, causes = np.frombuffer(self._writable(number), ROW), list(self._page(number).causes)
        before, after = Row._make(rows.item(place)), pack(deployment, causes)
        rows[place] = after
        self._causes[number] = tuple(causes)
        if before.kind != after.kind:
            counts = self._counts()[after.stage]
            counts[before.kind] -= 1
            counts[after.kind] += 1

    def where(self, test: Test, *, start: int = 0, limit: int | None = None) -> Places:
        """Return the places of the rows that pass a test, see `fleet.rollout.state.deployments.scan`."""
        return scan(self._pages(), test, start=start, limit=limit)

    def column(self, name: str, places: Places) -> NDArray[Any]:
        """Return the values of one column at ascending places."""
        return self.rows(places)[name]

    def assign(self, places: Places, **columns: Any) -> None:
        """Give columns of the rows at ascending places one value each.

        Args:
            places: Where.
            columns: The values by column, see `fleet.rollout.state.columns`; causes as they are.
        """
        rows = self.rows(places)
        before = kinds(rows)
        for name, value in columns.items():
            rows[name] = self._cause_numbers(places, value) if isinstance(value, Cause) else value
        self._write(places, rows)
        self._recount(rows["stage"], before, kinds(rows))

    def delay(self, column: str, by: float, most: float) -> None:
        """Add to every value of a column, but not beyond the most; what is there already and NaN stay."""
        for number in range(len(self._before.pages)):
            if not np.isnan(self._page(number).rows[column]).all():
                values = np.frombuffer(self._writable(number), ROW)[column]
                values[:] = np.minimum(values + by, np.fmax(values, most))

    def least(self, column: str) -> float | None:
        """Return the least value of a column; None if all are NaN."""
        return least(self._pages(), column)

    def finished(self) -> Deployments:
        """Return the next deployments; the very same object if nothing was written.

        The pages are handed over, not copied: what is written after this is written to new ones.
        """
        if self._open:
            self._before = Deployments(self._before.number, self.members, tuple(self._pages()))
            self._open, self._causes = {}, {}
        return self._before

    def _pages(self) -> Sequence[Page]:
        """Return all pages as the step has left them so far."""
        if not self._open:
            return self._before.pages
        pages = list(self._before.pages)
        for number in self._open:
            pages[number] = self._page(number)
        return pages

    def _page(self, number: int) -> Page:
        page = self._before.pages[number]
        data = self._open.get(number)
        return page if data is None else Page(data, self._causes.get(number, page.causes))

    def _writable(self, number: int) -> bytearray:
        """Return the rows of a page, to be written to."""
        data = self._open.get(number)
        if data is None:
            data = self._open[number] = bytearray(self._before.pages[number].data)
        return data

    def _write(self, places: Places, rows: Rows) -> None:
        """Exchange the rows at places."""
        data, writable, done = rows.tobytes(), self._writable, 0
        for number, at in _addresses(places):
            writable(number)[at : at + ROW_SIZE] = data[done : done + ROW_SIZE]
            done += ROW_SIZE

    def _cause_numbers(self, places: Places, cause: Cause) -> NDArray[np.uint16]:
        """Return the number of a cause in the page of each of the ascending places."""
        found = np.empty(len(places), dtype=np.uint16)
        done = 0
        for number, inside in split(places):
            causes = list(self._causes.get(number, self._before.pages[number].causes))
            found[done : done + len(inside)] = cause_number(cause, causes)
            self._causes[number] = tuple(causes)
            done += len(inside)
        return found

    def _counts(self) -> list[list[int]]:
        if self._tally is None:
            self._tally = [list(counts) for counts in self._tally_before]
        return self._tally

    def _recount(self, stages: NDArray[Any], before: NDArray[np.intp], after: NDArray[np.intp]) -> None:
        changed = before != after
        if not changed.any():
            return
        cells = stages[changed].astype(np.intp) * KINDS
        size = len(self._tally_before) * KINDS
        gained = np.bincount(cells + after[changed], minlength=size)
        gained -= np.bincount(cells + before[changed], minlength=size)
        counts = self._counts()
        for cell in np.flatnonzero(gained).tolist():
            counts[cell // KINDS][cell % KINDS] += int(gained[cell])


def _addresses(places: Places) -> Iterator[tuple[int, int]]:
    """Yield for each place the number of its page, and where in its bytes the row begins."""
    numbers, inside = np.divmod(places, PAGE_SIZE)
    return zip(numbers.tolist(), (inside * ROW_SIZE).tolist(), strict=True)
