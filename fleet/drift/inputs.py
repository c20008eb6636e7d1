"""What is computed of a model's input: cheap statistics, chosen by what the input is.

What an input is says its **layout**, a letter for each axis, as is usual: N samples, K columns, H rows and W
columns of pixels, C channels, T steps of time.

==============================  =====================================================================
layout                          features beside ``input.mean`` and ``input.contrast``
==============================  =====================================================================
``NK``, up to 16 columns        ``input.0``, ``input.1``, …: each column; ``input.3 (pressure)`` where
                                the signature names columns
``NHW``, ``NHWC``, ``NCHW``     ``input.energy``, ``input.sharpness`` over the pixels
``NT``, ``NTC``, ``NCT``        the same over time
other, unknown                  none
==============================  =====================================================================

A manifest declares the layout of a tensor. Where it declares none, two rules hold that can do no harm if
they are wrong, for reference and device compute the same from the same numbers:

- Samples of one axis with at most 16 numbers are a table, ``NK``.
- Samples of three axes, of which the last and not the first has 1, 3 or 4 entries, are ``NHWC``; with the
  first and not the last, ``NCHW``.

**Sharpness** of an image is the mean absolute Laplacian over its inner pixels, by the kernel of the four
neighbours: blur takes away just that (the Laplacian measures of focus in Pertuz, Puig and Garcia, "Analysis
of focus measure operators", Pattern Recognition 46, 2013). Of a sequence it is the mean absolute difference
of successive steps. **Energy** is the mean square, mean² + contrast².
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUT_MEAN = "input.mean"
INPUT_CONTRAST = "input.contrast"
INPUT_ENERGY = "input.energy"
INPUT_SHARPNESS = "input.sharpness"

MAX_COLUMNS = 16
"""Most columns that are profiled one by one."""
MAX_COLUMN_NAME_LENGTH = 64
"""How much of a column's name stands in the name of its feature."""
TABLE = "NK"

AXES_OF_LAYOUT: dict[str, tuple[int, ...]] = {
    "NHW": (1, 2),
    "NHWC": (1, 2),
    "NCHW": (2, 3),
    "NT": (1,),
    "NTC": (1,),
    "NCT": (2,),
}
"""The axes of images and sequences along which neighbours are compared; 0 is the samples'."""
LAYOUTS = (TABLE, *AXES_OF_LAYOUT)
"""What a manifest can declare."""

_CHANNELS = frozenset({1, 3, 4})
_COLUMN = re.compile(r"input\.(0|[1-9][0-9]{0,3})( \(.*\))?", re.DOTALL)

Rows = NDArray[np.float64]


def layout_of(declared: str, sample_shape: Sequence[int]) -> str:
    """Return the layout of an input; empty if it is not known.

    Args:
        declared: By the manifest; empty if nothing is.
        sample_shape: Shape of one sample, as the reference samples have it.
    """
    if declared:
        return declared if declared in LAYOUTS and len(declared) == len(sample_shape) + 1 else ""
    if len(sample_shape) == 1 and 1 <= sample_shape[0] <= MAX_COLUMNS:
        return TABLE
    if len(sample_shape) == 3:
        first, last = sample_shape[0] in _CHANNELS, sample_shape[-1] in _CHANNELS
        if first != last:
            return "NHWC" if last else "NCHW"
    return ""


def features_of_layout(layout: str, sample_shape: Sequence[int], columns: Sequence[str]) -> tuple[str, ...]:
    """Return which features of an input are profiled, by name.

    Args:
        layout: From `layout_of`.
        sample_shape: Shape of one sample.
        columns: Names of a table's columns; empty where they have none.
    """
    always = (INPUT_MEAN, INPUT_CONTRAST)
    if layout in AXES_OF_LAYOUT:
        return (*always, INPUT_ENERGY, INPUT_SHARPNESS)
    if layout == TABLE and sample_shape[0] <= MAX_COLUMNS:
        named = columns if len(columns) == sample_shape[0] else [""] * sample_shape[0]
        return (*always, *(column_feature(number, name) for number, name in enumerate(named)))
    return always


def column_feature(number: int, name: str = "") -> str:
    """Return the name of the feature that is one column of a table."""
    return f"input.{number} ({name[:MAX_COLUMN_NAME_LENGTH]})" if name else f"input.{number}"


def column_of(feature: str) -> int | None:
    """Return the number of the column that a feature is; None if it is none."""
    found = _COLUMN.fullmatch(feature)
    return int(found[1]) if found else None


class Given:
    """A block of inputs; what several features need of it is computed once.

    Args:
        inputs: Numbers, shape (N, …).
        axes: Along which neighbours are compared.
    """

    def __init__(self, inputs: NDArray[Any], axes: tuple[int, ...] = ()) -> None:
        self._shape = inputs.shape
        self._axes = axes
        self.rows: Rows = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1)

    @cached_property
    def mean(self) -> Rows:
        """Mean of the numbers of each sample that are present, shape (N,)."""
        return _mean(self.rows)

    @property
    def contrast(self) -> Rows:
        """Their standard deviation."""
        return np.sqrt(self._variance)

    @property
    def energy(self) -> Rows:
        """Their mean square."""
        with np.errstate(over="ignore"):
            return self._variance + np.square(self.mean)

    @property
    def sharpness(self) -> Rows:
        """How much neighbours differ, see the head of this file; missing where there are none."""
        if len(self._axes) not in (1, 2) or max(self._axes) >= len(self._shape):
            return np.full(len(self.rows), np.nan)
        values = self.rows.reshape(self._shape)
        with np.errstate(invalid="ignore", over="ignore"):  # of what is not finite nothing can be said
            is_image = len(self._axes) == 2
            differences = _laplacian(values, *self._axes) if is_image else np.diff(values, axis=self._axes[0])
            np.abs(differences, out=differences)
            return _mean(differences.reshape(len(values), int(np.prod(differences.shape[1:]))))

    def column(self, number: int) -> Rows:
        """Return one number of each sample; missing where samples have fewer."""
        if number >= self.rows.shape[1]:
            return np.full(len(self.rows), np.nan)
        return self.rows[:, number]

    @cached_property
    def _variance(self) -> Rows:
        with np.errstate(invalid="ignore", over="ignore"):
            deviations = self.rows - self.mean[:, None]
            return _mean(np.square(deviations, out=deviations))


def _laplacian(values: Rows, rows: int, columns: int) -> Rows:
    """Return four times each inner pixel less its four neighbours; of size 0 where there are none."""
    if min(values.shape[rows], values.shape[columns]) < 3:
        return np.empty((len(values), 0))

    def part(by_rows: slice, by_columns: slice) -> Rows:
        where = [slice(None)] * values.ndim
        where[rows], where[columns] = by_rows, by_columns
        return values[tuple(where)]

    before, inner, behind = slice(None, -2), slice(1, -1), slice(2, None)
    found: Rows = 4.0 * part(inner, inner)
    for neighbour in ((before, inner), (behind, inner), (inner, before), (inner, behind)):
        found -= part(*neighbour)
    return found


def _mean(rows: Rows) -> Rows:
    with np.errstate(invalid="ignore", over="ignore"):
        sums = rows.sum(axis=1)
        if rows.shape[1] and np.isfinite(sums).all():  # nothing is missing, as mostly
            complete: Rows = sums / rows.shape[1]
            return complete
        present = ~np.isnan(rows)
        counts = present.sum(axis=1)
        sums = np.where(present, rows, 0.0).sum(axis=1)
        means: Rows = np.divide(sums, counts, out=np.full(len(rows), np.nan), where=counts > 0)
        return means
