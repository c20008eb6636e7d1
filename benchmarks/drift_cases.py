"""The data of the drift benchmark: samples that did not drift, and samples that drifted in a known way.

A case is a table of current values for a table of reference values. Its columns are drawn apart from one
another, so that each is a repetition.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.generic]
Generator = np.random.Generator

REFERENCE_ROWS = 5000
CATEGORIES = 10


def _normal(mean: float = 0.0, scale: float = 1.0) -> Callable[[Generator, tuple[int, int]], Table]:
    return lambda rng, shape: rng.normal(mean, scale, shape)


def _with(share: float, value: float) -> Callable[[Generator, tuple[int, int]], Table]:
    return lambda rng, shape: np.where(rng.random(shape) < share, value, rng.normal(size=shape))


def _categories(more_of_one: float) -> Callable[[Generator, tuple[int, int]], Table]:
    def draw(rng: Generator, shape: tuple[int, int]) -> Table:
        even = rng.integers(0, CATEGORIES, shape)
        return np.where(rng.random(shape) < more_of_one, 3, even)

    return draw


DRIFTS: dict[str, Callable[[Generator, tuple[int, int]], Table]] = {
    "none": _normal(),
    "none, categories": _categories(0.0),
    "mean + 0.3 σ": _normal(mean=0.3),
    "mean + 0.5 σ": _normal(mean=0.5),
    "mean + 1 σ": _normal(mean=1.0),
    "scale × 1.5": _normal(scale=1.5),
    "scale × 0.6": _normal(scale=0.6),
    "5 % at 6 σ": _with(0.05, 6.0),
    "category + 20 %": _categories(0.2),
    "10 % missing": _with(0.1, np.nan),
    "30 % missing": _with(0.3, np.nan),
}
"""The current values of each case; the reference is like ``none``, or its categories."""


def is_categorical(drift: str) -> bool:
    """Whether the values are category numbers."""
    return "categor" in drift


def reference_table(rng: Generator, drift: str, columns: int) -> Table:
    """Return the reference values of a case, shape (rows, columns)."""
    none = "none, categories" if is_categorical(drift) else "none"
    return DRIFTS[none](rng, (REFERENCE_ROWS, columns))


def current_table(rng: Generator, drift: str, rows: int, columns: int) -> Table:
    """Return the current values of a case, shape (rows, columns)."""
    return DRIFTS[drift](rng, (rows, columns))
