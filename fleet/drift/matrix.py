"""Counts of many windows of one version as matrices: a row for each window, a column for each number.

::

    columns     missing  cell 0  cell 1  …        missing  cell 0  …
    feature     ----- the first of the layout --  ----- the second --

Adding windows is then adding rows, thousands at a time. Offsets stand in a second matrix, in the columns of
their cells. A feature that a window does not have adds nothing, and one whose offsets are not known leaves
the sum without them, as in `fleet.drift.profile.FeatureCounts.merged`.

Numbers are 64-bit integers, and sums of them must stay so. Counts of a window are bounded when it is read;
offsets of more than `MOST_ADDED` are given up before they are added, which only takes from the precision of a
Wasserstein distance, of values that are thousands of times the whole range of the reference away from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.profile import FeatureCounts, Profile, ReferenceProfile
from fleet.protocol.errors import InvalidMessage

MOST_ADDED = 2**43
"""Largest offset that is added up: a million of them fit into 63 bits."""

Integers = NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)


class Layout(msgspec.Struct, frozen=True, dict=True):
    """Which features there are, and how many cells each has.

    Attributes:
        features: Name and number of cells of each.
    """

    features: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, reference: ReferenceProfile) -> Self:
        """Return the layout of a version."""
        return cls(tuple((feature.name, len(feature.cells)) for feature in reference.features))

    @cached_property
    def places(self) -> dict[str, int]:
        """Number of each feature, by name."""
        return {name: place for place, (name, _) in enumerate(self.features)}

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First column of each feature, and then how many columns there are."""
        starts = [0]
        for _, cells in self.features:
            starts.append(starts[-1] + 1 + cells)
        return tuple(starts)

    @cached_property
    def is_missing(self) -> NDArray[np.bool_]:
        """Which columns are of missing values, shape (C,)."""
        is_missing = np.zeros(self.columns, dtype=np.bool_)
        is_missing[list(self.starts[:-1])] = True
        return is_missing

    def spread(self, features: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return for each column what is said of its feature, from shape (…, F) to (…, C)."""
        return np.repeat(features, np.diff(self.starts), axis=-1)

    @property
    def columns(self) -> int:
        """How many there are."""
        return self.starts[-1]

    def check(self, cells: Mapping[str, int]) -> None:
        """Check that features with so many cells are in this layout.

        Raises:
            InvalidMessage: One is not.
        """
        for name, number in cells.items():
            place = self.places.get(name)
            if place is None or self.features[place][1] != number:
                raise InvalidMessage(f"The window has {number} cells for {name!r:.80}.")


class CountsMatrix(NamedTuple):
    """Counts of N windows over F features with C columns together.

    Attributes:
        layout: What the columns are.
        numbers: Counts, shape (N, C).
        offsets: Of the cells, shape (N, C); 0 for missing values and where they are not known.
        present: Whether the window has the feature, shape (N, F).
        exact: Whether it has offsets of it, shape (N, F).
        lowest: Smallest value, shape (N, F); infinity where there is none.
        highest: Largest value, shape (N, F); minus infinity where there is none.
    """

    layout: Layout
    numbers: Integers
    offsets: Integers
    present: NDArray[np.bool_]
    exact: NDArray[np.bool_]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]

    @classmethod
    def empty(cls, layout: Layout, rows: int) -> Self:
        """Return windows without any feature."""
        columns, features = (rows, layout.columns), (rows, len(layout.features))
        return cls(
            layout,
            np.zeros(columns, dtype=np.int64),
            np.zeros(columns, dtype=np.int64),
            np.zeros(features, dtype=np.bool_),
            np.zeros(features, dtype=np.bool_),
            np.full(features, np.inf),
            np.full(features, -np.inf),
        )

    @classmethod
    def stacked(cls, parts: Sequence[CountsMatrix]) -> Self:
        """Return the rows of matrices of one layout, one after the other."""
        return cls(
            parts[0].layout,
            np.concatenate([part.numbers for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.present for part in parts]),
            np.concatenate([part.exact for part in parts]),
            np.concatenate([part.lowest for part in parts]),
            np.concatenate([part.highest for part in parts]),
        )

    def rows(self, chosen: NDArray[np.intp] | NDArray[np.bool_] | slice) -> CountsMatrix:
        """Return some of the rows."""
        return CountsMatrix(
            self.layout,
            self.numbers[chosen],
            self.offsets[chosen],
            self.present[chosen],
            self.exact[chosen],
            self.lowest[chosen],
            self.highest[chosen],
        )

    def copy_rows(self, rows: Sequence[int], source: CountsMatrix) -> None:
        """Write all rows of another matrix of the layout over these rows."""
        for into, array in zip(self[1:], source[1:], strict=True):
            into[rows] = array

    def put(self, row: int, profile: Profile) -> None:
        """Write a window's counts, which are in this layout, into an empty row."""
        for name, counts in profile.items():
            place = self.layout.places[name]
            start, end = self.layout.starts[place], self.layout.starts[place + 1]
            self.numbers[row, start] = counts.missing
            self.numbers[row, start + 1 : end] = counts.cells
            if counts.offsets:
                self.offsets[row, start + 1 : end] = counts.offsets
            self.present[row, place], self.exact[row, place] = True, bool(counts.offsets)
            if counts.minimum is not None and counts.maximum is not None:
                self.lowest[row, place], self.highest[row, place] = counts.minimum, counts.maximum

    def profile(self, row: int) -> Profile:
        """Return a row's counts."""
        numbers, offsets = self.numbers[row].tolist(), self.offsets[row].tolist()
        return {
            name: self._counts(row, place, numbers, offsets)
            for place, (name, _) in enumerate(self.layout.features)
            if self.present[row, place]
        }

    def _counts(self, row: int, place: int, numbers: list[int], offsets: list[int]) -> FeatureCounts:
        start, end = self.layout.starts[place], self.layout.starts[place + 1]
        low, high = float(self.lowest[row, place]), float(self.highest[row, place])
        return FeatureCounts(
            cells=numbers[start + 1 : end],
            missing=numbers[start],
            minimum=low if low <= high else None,
            maximum=high if low <= high else None,
            offsets=offsets[start + 1 : end] if self.exact[row, place] else [],
        )

    def counted(self) -> Integers:
        """Return how many values of each feature were counted, missing ones included, shape (N, F)."""
        if not self.layout.features:
            return np.zeros((len(self.numbers), 0), dtype=np.int64)
        counted: Integers = np.add.reduceat(self.numbers, self.layout.starts[:-1], axis=1)
        return counted

    def summed(self, groups: Groups) -> CountsMatrix:
        """Return the sum of the rows of each group, shape (G, …)."""
        exact, offsets = self._addable()
        present = groups.any(self.present)
        return CountsMatrix(
            self.layout,
            groups.sum(self.numbers),
            groups.sum(offsets),
            present,
            present & ~groups.any(self.present & ~exact),
            groups.smallest(self.lowest),
            groups.largest(self.highest),
        )._consistent()

    def _addable(self) -> tuple[NDArray[np.bool_], Integers]:
        if self.offsets.max(initial=0) <= MOST_ADDED:
            return self.exact, self.offsets
        most = np.maximum.reduceat(self.offsets, self.layout.starts[:-1], axis=1)
        exact = self.exact & (most <= MOST_ADDED)
        return exact, np.where(self.layout.spread(exact), self.offsets, 0)

    def _consistent(self) -> CountsMatrix:
        """Return the same without the offsets of features whose offsets are not known."""
        unknown = self.present & ~self.exact
        if unknown.any() and self.offsets.any():
            return self._replace(offsets=np.where(self.layout.spread(unknown), 0, self.offsets))
        return self


class Groups:
    """Which rows are added up.

    Args:
        numbers: The group of each row, from 0 on, shape (N,); no group is empty.
    """

    def __init__(self, numbers: Iterable[int] | NDArray[np.intp]) -> None:
        of_row = numbers if isinstance(numbers, np.ndarray) else np.array(list(numbers), dtype=np.intp)
        self._of_row = of_row
        self._order = np.argsort(of_row, kind="stable")
        ordered = of_row[self._order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        self._sorted = bool((self._order == np.arange(len(of_row))).all())
        self.number = len(self._starts)
        self.is_single = self.number == len(of_row)
        """Whether every group is one row."""

    def sum(self, rows: Integers) -> Integers:
        """Return the sum of each group's rows."""
        return self._reduced(np.add, rows)

    def any(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return where any of each group's rows is true."""
        return self._reduced(np.logical_or, rows)

    def smallest(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the smallest of each group's rows."""
        return self._reduced(np.minimum, rows)

    def largest(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest of each group's rows."""
        return self._reduced(np.maximum, rows)

    def members(self, rows: Iterable[int]) -> dict[int, list[int]]:
        """Return some of the rows by their group."""
        members: dict[int, list[int]] = {}
        for row in rows:
            members.setdefault(int(self._of_row[row]), []).append(row)
        return members

    def last(self) -> NDArray[np.intp]:
        """Return the last row of each group."""
        last: NDArray[np.intp] = self._order[np.append(self._starts[1:], len(self._order)) - 1]
        return last

    def _reduced(self, add: np.ufunc, rows: NDArray[_Number]) -> NDArray[_Number]:
        ordered: NDArray[_Number] = rows if self._sorted else rows[self._order]
        if self.is_single:
            return ordered
        sums: NDArray[_Number] = add.reduceat(ordered, self._starts, axis=0)
        return sums
