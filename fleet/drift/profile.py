"""Reference profiles and counts: the two sides of every drift comparison.

A feature is one number, or one category, for each prediction. Its values are never sent: a device counts
how many fall into each *cell*, and cells of equal meaning are added across windows, devices and cohorts.

numeric feature with ``b + 1`` edges::

    cell      0        1 … b                                              b + 1
    meaning   below    bin i holds edges[i-1] <= x < edges[i]             above
                       (the last bin includes its right edge)

categorical feature with ``c`` categories::

    cell      0 … c - 1                                                   c
    meaning   the category with that number                               unseen

Missing values (NaN) are counted apart. Edges are quantiles of the reference sample, so that each bin
holds about the same share of it and no bin is wasted.
"""

from __future__ import annotations

from typing import Annotated, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidMessage

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class FeatureReference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feature as it was when the model was released.

    Attributes:
        name: Name of the feature, see `fleet.drift.features`.
        cells: Counts of the reference sample, laid out as at the head of this file.
        edges: Bin edges, ascending; None for a categorical feature.
        missing: Values of the reference sample that were missing.
    """

    name: str
    cells: tuple[int, ...]
    edges: tuple[float, ...] | None = None
    missing: int = 0


class ReferenceProfile(msgspec.Struct, frozen=True):
    """All profiled features of a model version, as shipped in its manifest."""

    features: tuple[FeatureReference, ...]


class FeatureCounts(msgspec.Struct, omit_defaults=True):
    """Counts of one feature over a window.

    Attributes:
        cells: Counts, laid out as at the head of this file.
        missing: How many values were missing.
        minimum: Smallest value seen; None if there was none, or for a category.
        maximum: Largest value seen; None likewise.
    """

    cells: list[Count]
    missing: Count = 0
    minimum: float | None = None
    maximum: float | None = None

    @classmethod
    def empty(cls, reference: FeatureReference) -> Self:
        """Return counts of nothing, in the layout of the reference."""
        return cls(cells=[0] * len(reference.cells))

    @property
    def total(self) -> int:
        """Number of values counted, without the missing ones."""
        return sum(self.cells)

    def merged(self, other: FeatureCounts) -> FeatureCounts:
        """Return the counts of both windows together.

        Raises:
            InvalidMessage: The two have different layouts.
        """
        if len(self.cells) != len(other.cells):
            raise InvalidMessage("Counts with different numbers of cells cannot be added.")
        return FeatureCounts(
            cells=[a + b for a, b in zip(self.cells, other.cells, strict=True)],
            missing=self.missing + other.missing,
            minimum=min((v for v in (self.minimum, other.minimum) if v is not None), default=None),
            maximum=max((v for v in (self.maximum, other.maximum) if v is not None), default=None),
        )


Profile = dict[str, FeatureCounts]
"""Counts of several features, by name."""


def merge_profiles(left: Profile, right: Profile) -> Profile:
    """Return the counts of both, feature by feature; a feature in only one of them is kept.

    Raises:
        InvalidMessage: A feature has different layouts in the two.
    """
    merged = dict(left)
    for name, counts in right.items():
        merged[name] = merged[name].merged(counts) if name in merged else counts
    return merged


def numeric_reference(
    name: str, values: NDArray[np.floating], *, bins: int = 16, edges: tuple[float, ...] | None = None
) -> FeatureReference:
    """Build the reference of a numeric feature.

    Args:
        name: Name of the feature.
        values: The reference sample, shape (N,); NaN counts as missing.
        bins: Most bins; fewer where quantiles coincide.
        edges: Ascending edges to use in place of quantiles.
    """
    if edges is None:
        edges = _quantile_edges(values[~np.isnan(values)], bins)
    reference = FeatureReference(name=name, cells=(0,) * (len(edges) + 1), edges=edges)
    counts = count(reference, values)
    return msgspec.structs.replace(reference, cells=tuple(counts.cells), missing=counts.missing)


def categorical_reference(name: str, values: NDArray[np.integer], categories: int) -> FeatureReference:
    """Build the reference of a categorical feature.

    Args:
        name: Name of the feature.
        values: Category numbers of the reference sample, shape (N,).
        categories: How many categories there are.
    """
    reference = FeatureReference(name=name, cells=(0,) * (categories + 1))
    return msgspec.structs.replace(reference, cells=tuple(count(reference, values).cells))


def count(reference: FeatureReference, values: NDArray[np.generic]) -> FeatureCounts:
    """Count values into the cells of a reference.

    Args:
        reference: Gives the layout.
        values: Shape (N,): floats for a numeric feature, category numbers for a categorical one.
    """
    if reference.edges is None:
        unseen = len(reference.cells) - 1
        numbers = np.asarray(values, dtype=np.int64)
        numbers = np.where((numbers < 0) | (numbers >= unseen), unseen, numbers)
        return FeatureCounts(cells=np.bincount(numbers, minlength=unseen + 1).tolist())
    numeric = np.asarray(values, dtype=np.float64)
    present = numeric[~np.isnan(numeric)]
    if present.size == 0:
        return msgspec.structs.replace(FeatureCounts.empty(reference), missing=numeric.size)
    edges = np.asarray(reference.edges)
    cell = np.searchsorted(edges, present, side="right")
    cell[present == edges[-1]] = len(edges) - 1
    return FeatureCounts(
        cells=np.bincount(cell, minlength=len(edges) + 1).tolist(),
        missing=int(numeric.size - present.size),
        minimum=float(present.min()),
        maximum=float(present.max()),
    )


def _quantile_edges(present: NDArray[np.floating], bins: int) -> tuple[float, ...]:
    edges = np.unique(np.quantile(present, np.linspace(0.0, 1.0, bins + 1)))
    if len(edges) == 1:  # a constant feature still needs one bin with a width
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    return tuple(edges.tolist())
