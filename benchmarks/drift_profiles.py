"""What profiles cost, and how near distances from counts are to those of the values: for the drift benchmark.

Other ways of counting stand here to be measured beside that of `fleet.drift.cells`: binary search alone, and
sorting a block first. They count into cells only, without offsets, extremes and missing values.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fleet.drift.encoding import encode_profile
from fleet.drift.metrics import ks_distance
from fleet.drift.profile import FeatureReference, count, numeric_reference
from fleet.drift.transport import wasserstein

REFERENCE_ROWS = 100_000
SEVERAL_ROWS = (512, 8192, 65_536)
"""At once; the first is a block of the agent, see `agent.telemetry.block`."""
Column = NDArray[np.float64]


class Cost(NamedTuple):
    """What a profile costs, by feature: CPU time for each value; bytes, before and after compression."""

    ns_per_value: float
    raw_bytes: float
    sent_bytes: float
    counts_bytes: float


def references(table: NDArray[np.float64]) -> list[FeatureReference]:
    """Return a reference for each column."""
    return [numeric_reference(f"input.{number}", column) for number, column in enumerate(table.T)]


def profile_cost(features: list[FeatureReference], table: NDArray[np.float64]) -> Cost:
    """Profile a table, column by column."""
    columns = [np.ascontiguousarray(column) for column in table.T]
    count(features[0], columns[0][:10])  # what is worked out once for a layout is not counted
    started_s = time.process_time()
    profile = {
        feature.name: count(feature, column) for feature, column in zip(features, columns, strict=True)
    }
    cpu_s = time.process_time() - started_s
    counts = {name: msgspec.structs.replace(counted, offsets=[]) for name, counted in profile.items()}
    return Cost(
        cpu_s / table.size * 1e9,
        len(encode_profile(profile, level=0)) / len(features),
        len(encode_profile(profile)) / len(features),
        len(encode_profile(counts)) / len(features),
    )


def level_bytes(features: list[FeatureReference], table: NDArray[np.float64]) -> dict[int, int]:
    """Return the size of a profile by level of compression."""
    profile = {f.name: count(f, column) for f, column in zip(features, table.T, strict=True)}
    return {level: len(encode_profile(profile, level=level)) for level in (1, 6, 9)}


def counting_ns(feature: FeatureReference, values: Column, rows: int) -> dict[str, float]:
    """Return the CPU time that a value takes, by way of counting."""
    edges = np.asarray(feature.edges)
    ways: dict[str, Callable[[Column], object]] = {
        "binary search": lambda block: np.bincount(
            np.searchsorted(edges, block, side="right"), minlength=len(edges) + 1
        ),
        "sorting": lambda block: np.diff(np.searchsorted(np.sort(block), edges)),
        "ours, all of it": lambda block: count(feature, block),
    }
    return {name: _ns_per_value(way, values, rows) for name, way in ways.items()}


def _ns_per_value(way: Callable[[Column], object], values: Column, rows: int) -> float:
    started_s = time.process_time()
    for at in range(0, len(values), rows):
        way(values[at : at + rows])
    return (time.process_time() - started_s) / len(values) * 1e9


class Accuracy(NamedTuple):
    """Errors of distances from counts: of Wasserstein in σ, and of Kolmogorov-Smirnov."""

    shape: str
    mean_moved: float
    largest_moved: float
    largest_ks: float


def accuracy(rng: np.random.Generator) -> list[Accuracy]:
    """Compare distances from counts with scipy's from the values, by shape of the distribution."""
    return [_accuracy(rng, shape) for shape in ("normal", "uniform", "standard_exponential", "standard_t")]


def _accuracy(rng: np.random.Generator, shape: str) -> Accuracy:
    def draw(size: int) -> Column:
        return np.asarray(
            rng.standard_t(4, size) if shape == "standard_t" else getattr(rng, shape)(size=size)
        )

    moved, apart = [], []
    for rows in (200, 1000, 5000):
        for shift, scale in [(0.0, 1.0), (0.1, 1.0), (0.3, 1.0), (1.0, 1.0), (0.0, 1.3), (0.0, 0.7)]:
            sample = draw(5000)
            values = draw(rows) * scale + shift * sample.std()
            reference = numeric_reference("x", sample)
            counts = count(reference, values)
            measured = wasserstein(reference, counts)
            assert measured is not None
            moved.append(abs(measured - stats.wasserstein_distance(sample, values) / sample.std()))
            exact = stats.ks_2samp(sample, values, method="asymp").statistic
            apart.append(abs(exact - ks_distance(reference.cells, counts.cells)))
    return Accuracy(shape.replace("standard_", ""), float(np.mean(moved)), max(moved), max(apart))
