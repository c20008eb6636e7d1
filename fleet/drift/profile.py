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

**Offsets.** Of a numeric feature each cell also has the sum of how far its values are into it, as whole
numbers: in a bin each value adds floor(256 · (x - left edge) / width), at most 255; below and above it adds
the distance from the outermost edge in 256ths of the range of all edges, at most `MAX_OFFSET`. Of most
values the position in the bin is that of the middle of their step on a fine grid (`fleet.drift.cells`), in
place of their own. So the mean of a cell is known to 1/256 of its width and half a step, and mostly nearer,
which makes the Wasserstein distance nearly exact. As the sums are whole numbers, merging is exact in any
order, and no value, however large, spoils a sum. Counts of older agents have no offsets; merged with any,
they stay without.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.cells import MAX_OFFSET, OFFSET_UNITS, layout_of, tally
from fleet.protocol.errors import InvalidMessage

MAX_COUNT = 2**53
DEFAULT_BINS = 64

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class FeatureReference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feature as it was when the model was released.

    Attributes:
        name: Name of the feature, see `fleet.drift.features`.
        cells: Counts of the reference sample, laid out as at the head of this file.
        edges: Bin edges, ascending; None for a categorical feature.
        missing: Values of the reference sample that were missing.
        offsets: How far values are into their cells, see there; empty for categories, or if not known.
        deviation: Standard deviation of the reference sample's finite values; None likewise.
        allowance: What is allowed for the reference being a sample, in standard errors, see
            `fleet.drift.allowance`; None if it was not calibrated.
        correct: Of the confidence, if the reference sample had labels: how many answers of each cell were
            right, see `fleet.quality.calibration`; else empty.
        axes: Of the inputs, along which their neighbours are compared, see `fleet.drift.inputs`; empty for
            features that compare none.
    """

    name: str
    cells: tuple[int, ...]
    edges: tuple[float, ...] | None = None
    missing: int = 0
    offsets: tuple[int, ...] = ()
    deviation: float | None = None
    allowance: float | None = None
    correct: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()


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
        offsets: How far values are into their cells, see there; empty for categories, or if not known.
    """

    cells: list[Count]
    missing: Count = 0
    minimum: float | None = None
    maximum: float | None = None
    offsets: list[Count] = []

    @classmethod
    def empty(cls, reference: FeatureReference) -> Self:
        """Return counts of nothing, in the layout of the reference."""
        cells = [0] * len(reference.cells)
        return cls(cells=cells, offsets=[] if reference.edges is None else list(cells))

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
            offsets=[a + b for a, b in zip(self.offsets, other.offsets, strict=False)],
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


def check_counts(counts: FeatureCounts) -> None:
    """Check that counts can be of some values.

    Raises:
        InvalidMessage: They cannot: offsets that their cells do not allow, or extremes in the wrong order.
    """
    cells, offsets = counts.cells, counts.offsets
    if offsets:
        if len(offsets) != len(cells) or len(cells) < 3:
            raise InvalidMessage(f"There are {len(offsets)} offsets for {len(cells)} cells.")
        most = [MAX_OFFSET, *[OFFSET_UNITS - 1] * (len(cells) - 2), MAX_OFFSET]
        if any(o > m * c for o, m, c in zip(offsets, most, cells, strict=True)):
            raise InvalidMessage("Values are further into a cell than the cell is wide.")
    if (counts.minimum is None) != (counts.maximum is None):
        raise InvalidMessage("Counts have one extreme without the other.")
    if counts.minimum is not None and counts.maximum is not None and not counts.minimum <= counts.maximum:
        raise InvalidMessage("The smallest value of the counts is above the largest.")


def numeric_reference(
    name: str,
    values: NDArray[np.floating],
    *,
    bins: int = DEFAULT_BINS,
    edges: tuple[float, ...] | None = None,
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
    finite = values[np.isfinite(values)]
    return msgspec.structs.replace(
        reference,
        cells=tuple(counts.cells),
        missing=counts.missing,
        offsets=tuple(counts.offsets),
        deviation=float(np.std(finite, dtype=np.longdouble)) if finite.size else None,
    )


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
    counted = tally(np.asarray(values), layout_of(reference.edges))
    return FeatureCounts(
        cells=counted.cells.tolist(),
        missing=counted.missing,
        minimum=counted.minimum,
        maximum=counted.maximum,
        offsets=counted.offsets.tolist(),
    )


def _quantile_edges(present: NDArray[np.floating], bins: int) -> tuple[float, ...]:
    """Return distinct quantiles; the inner ones with few digits, where that keeps them apart."""
    edges = np.unique(np.quantile(present, np.linspace(0.0, 1.0, bins + 1)))
    if len(edges) == 1:  # a constant feature still needs one bin with a width
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    short = [edges[0], *(float(f"{edge:.7g}") for edge in edges[1:-1]), edges[-1]]
    ascending = all(left < right for left, right in pairwise(short))
    return tuple(float(edge) for edge in (short if ascending else edges))
