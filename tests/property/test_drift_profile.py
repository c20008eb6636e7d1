"""Counts for any values: nothing is lost, and it does not matter how a stream is cut into windows."""

from __future__ import annotations

import math
from functools import reduce
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(EDGES, VALUES)
def test_many_values_are_counted_as_few_are(edges: tuple[float, ...], values: list[float]) -> None:
    """Another way of finding the cell, see `fleet.drift.cells`; edges among the values."""
    few = np.array([*values, *edges, *np.nextafter(edges, np.inf), *np.nextafter(edges, -np.inf)])
    once, times = count(_reference(edges), few), 600 // len(few) + 1
    many = count(_reference(edges), np.tile(few, times))
    assert many.cells == [times * cell for cell in once.cells]
    assert many.offsets == [times * offset for offset in once.offsets]
    assert (many.missing, many.minimum, many.maximum) == (times * once.missing, once.minimum, once.maximum)


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
