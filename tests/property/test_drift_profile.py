"""Counts for any values: nothing is lost, and it does not matter how a stream is cut into windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fleet.drift.cells import FEWEST_FOR_STEPS, GRID, OFFSET_UNITS
from fleet.drift.profile import (
    FeatureCounts,
    FeatureReference,
    categorical_reference,
    count,
    merge_profiles,
    numeric_reference,
)

VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40)
EDGES = st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=8, unique=True).map(lambda e: tuple(sorted(e)))


def _reference(edges: tuple[float, ...]) -> FeatureReference:
    return FeatureReference("x", cells=(0,) * (len(edges) + 1), edges=edges)


@given(EDGES, VALUES)
def test_every_value_is_in_one_cell_or_missing(edges: tuple[float, ...], values: list[float]) -> None:
    counts = count(_reference(edges), np.array(values))
    present = [value for value in values if not math.isnan(value)]
    assert len(counts.cells) == len(edges) + 1
    assert counts.total == len(present)
    assert counts.missing == len(values) - len(present)
    assert counts.minimum == (min(present) if present else None)
    assert counts.maximum == (max(present) if present else None)


@given(EDGES, VALUES)
def test_cells_are_those_of_the_layout(edges: tuple[float, ...], values: list[float]) -> None:
    expected = [0] * (len(edges) + 1)
    for value in values:
        if math.isnan(value):
            continue
        cell = sum(value >= edge for edge in edges)
        expected[len(edges) - 1 if value == edges[-1] else cell] += 1
    assert count(_reference(edges), np.array(values)).cells == expected


MANY_EDGES = st.lists(st.floats(-1e9, 1e9) | st.floats(0.0, 1.0), min_size=2, max_size=40, unique=True).map(
    lambda edges: tuple(sorted(edges))
)


@given(MANY_EDGES, VALUES)
@settings(deadline=None)
def test_many_values_are_counted_as_few_and_as_one(edges: tuple[float, ...], values: list[float]) -> None:
    """Other ways of counting, see `fleet.drift.cells`; edges and what is next to them are among these."""
    few = np.array([*values, *edges, *np.nextafter(edges, np.inf), *np.nextafter(edges, -np.inf)])
    once, times = count(_reference(edges), few), FEWEST_FOR_STEPS // len(few) + 1
    many = count(_reference(edges), np.tile(few, times))
    assert many.cells == [times * cell for cell in once.cells]
    assert many.offsets == [times * offset for offset in once.offsets]
    assert (many.missing, many.minimum, many.maximum) == (times * once.missing, once.minimum, once.maximum)
    assert reduce(FeatureCounts.merged, [count(_reference(edges), few[[n]]) for n in range(len(few))]) == once


SHAPES: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "cauchy": lambda rng, size: rng.standard_cauchy(size),
    "lognormal": lambda rng, size: rng.lognormal(0.0, 2.0, size),
}


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(SHAPES)))
@settings(deadline=None, max_examples=40)
def test_cells_are_exact_and_offsets_as_near_as_half_a_step_of_the_grid(seed: int, shape: str) -> None:
    rng = np.random.default_rng(seed)
    reference = numeric_reference("x", SHAPES[shape](rng, 3000))
    assert reference.edges is not None
    edges, values = np.array(reference.edges), SHAPES[shape](rng, 6000)
    counts = count(reference, values)
    cell = np.searchsorted(edges, values, side="right")
    assert counts.cells == np.bincount(cell, minlength=len(edges) + 1).tolist()
    inside = (cell > 0) & (cell < len(edges))
    into = OFFSET_UNITS * (values - edges[cell - 1]) / np.append(np.diff(edges), np.inf)[cell - 1]
    sums = np.bincount(cell[inside], weights=into[inside], minlength=len(edges) + 1)[1:-1]
    half_a_step = OFFSET_UNITS / 2.0 * (edges[-2] - edges[1]) / GRID / np.diff(edges)
    error = np.abs(np.array(counts.offsets[1:-1]) + 0.5 * np.array(counts.cells[1:-1]) - sums)
    assert (error <= (1.0 + half_a_step) * counts.cells[1:-1]).all()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int16, np.uint8, np.bool_, np.int64])
def test_numbers_of_any_type_are_counted_as_the_floats_they_are(kind: type[np.generic]) -> None:
    reference = numeric_reference("x", np.linspace(-3.0, 200.0, 1000))
    values = (np.arange(3 * FEWEST_FOR_STEPS) % 210).astype(kind)
    assert count(reference, values) == count(reference, values.astype(np.float64))
    assert count(reference, np.column_stack([values, values])[:, 1]) == count(reference, values)


@pytest.mark.parametrize("scale", [1.0, 2.0**-20, 2.0**-22, 1e300, 5e-324])
def test_a_grid_finer_than_numbers_are_does_no_harm(scale: float) -> None:
    start = 1.7e9 if scale < 1.0 and scale > 1e-300 else 0.0
    values = start + np.arange(1000.0) * scale
    reference = numeric_reference("x", values)
    assert reference.edges is not None
    edges = np.array(reference.edges)
    cells = np.minimum(np.searchsorted(edges, values, side="right"), len(edges) - 1)
    assert count(reference, values).cells == np.bincount(cells, minlength=len(edges) + 1).tolist()


@given(EDGES, st.lists(VALUES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_windows_add_up_in_any_order(
    edges: tuple[float, ...], windows: list[list[float]], random: Random
) -> None:
    reference = _reference(edges)
    whole = count(reference, np.array([value for window in windows for value in window]))
    parts = [count(reference, np.array(window)) for window in windows]
    random.shuffle(parts)
    assert reduce(FeatureCounts.merged, parts) == whole
    assert reduce(FeatureCounts.merged, reversed(parts)) == whole
    assert FeatureCounts.empty(reference).merged(whole) == whole


@given(st.integers(1, 12), st.lists(st.integers(-5, 20), max_size=40))
def test_categories_outside_are_unseen_and_none_is_lost(categories: int, numbers: list[int]) -> None:
    reference = categorical_reference("c", np.array(numbers, dtype=np.int64), categories)
    assert sum(reference.cells) == len(numbers)
    assert reference.cells[-1] == sum(not 0 <= number < categories for number in numbers)
    for category in range(categories):
        assert reference.cells[category] == numbers.count(category)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=60), st.integers(1, 20))
def test_a_reference_sample_is_all_inside_its_edges(values: list[float], bins: int) -> None:
    reference = numeric_reference("x", np.array(values), bins=bins)
    assert reference.edges is not None
    assert list(reference.edges) == sorted(set(reference.edges))
    assert reference.cells[0] == reference.cells[-1] == 0
    assert sum(reference.cells) == len(values)


PROFILES = st.dictionaries(
    st.sampled_from("abc"),
    st.builds(
        FeatureCounts,
        cells=st.lists(st.integers(0, 99), min_size=3, max_size=3),
        missing=st.integers(0, 99),
        minimum=st.none() | st.floats(-9, 9),
        maximum=st.none() | st.floats(-9, 9),
    ),
)


@given(PROFILES, PROFILES, PROFILES)
def test_merging_profiles_is_commutative_and_associative(
    a: dict[str, FeatureCounts], b: dict[str, FeatureCounts], c: dict[str, FeatureCounts]
) -> None:
    assert merge_profiles(a, b) == merge_profiles(b, a)
    assert merge_profiles(merge_profiles(a, b), c) == merge_profiles(a, merge_profiles(b, c))
    assert merge_profiles(a, {}) == a
