"""Reference profiles and counts: which cell a value falls into, and how counts add up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from fleet.drift.cells import MAX_OFFSET, OFFSET_UNITS
from fleet.drift.encoding import encode_profile
from fleet.drift.features import (
    CONFIDENCE_EDGES,
    FEATURES_OF_TASK,
    OUTPUT_CLASS,
    OUTPUT_CONFIDENCE,
    build_reference,
    count_block,
    extract,
)
from fleet.drift.inputs import INPUT_CONTRAST, INPUT_MEAN
from fleet.drift.profile import (
    DEFAULT_BINS,
    FeatureCounts,
    FeatureReference,
    categorical_reference,
    check_counts,
    count,
    merge_profiles,
    numeric_reference,
)
from fleet.protocol.errors import InvalidMessage

EDGES = (0.0, 1.0, 2.0, 4.0)
NUMERIC = FeatureReference("x", cells=(0,) * 5, edges=EDGES)
CATEGORICAL = FeatureReference("c", cells=(0,) * 4)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-np.inf, 0),
        (np.nextafter(0.0, -1), 0),
        (0.0, 1),
        (-0.0, 1),
        (np.nextafter(1.0, 0), 1),
        (1.0, 2),
        (2.0, 3),
        (np.nextafter(4.0, 0), 3),
        (4.0, 3),  # the last bin includes its right edge
        (np.nextafter(4.0, 5), 4),
        (np.inf, 4),
    ],
)
def test_a_bin_holds_its_left_edge_and_the_last_one_its_right_edge_too(value: float, cell: int) -> None:
    assert count(NUMERIC, np.array([value])).cells == [int(i == cell) for i in range(5)]


def test_missing_values_are_counted_apart() -> None:
    counts = count(NUMERIC, np.array([np.nan, 0.5, np.nan, 9.0]))
    assert counts == FeatureCounts([0, 1, 0, 0, 1], 2, 0.5, 9.0, offsets=[0, 128, 0, 0, 320])
    assert counts.total == 2


@pytest.mark.parametrize("values", [np.array([]), np.array([np.nan, np.nan])])
def test_nothing_present_has_neither_minimum_nor_maximum(values: NDArray[np.float64]) -> None:
    assert count(NUMERIC, values) == FeatureCounts([0] * 5, missing=len(values), offsets=[0] * 5)


def test_categories_outside_the_known_ones_are_unseen() -> None:
    assert count(CATEGORICAL, np.array([0, 2, 2, 3, 99, -1])).cells == [1, 0, 2, 3]


def test_an_empty_window_of_categories_counts_nothing() -> None:
    assert count(CATEGORICAL, np.array([], dtype=np.int64)) == FeatureCounts.empty(CATEGORICAL)


def test_quantile_edges_share_the_reference_out_evenly() -> None:
    values = np.random.RandomState(0).normal(size=1600)
    reference = numeric_reference("x", values, bins=16)
    assert reference.edges is not None
    assert len(reference.edges) == 17
    assert reference.edges[0] == values.min()
    assert reference.edges[-1] == values.max()
    assert reference.cells == (0, *[100] * 16, 0)


def test_coinciding_quantiles_give_fewer_bins_and_lose_no_value() -> None:
    reference = numeric_reference("x", np.array([0.0] * 90 + [1.0] * 10), bins=16)
    assert reference.edges is not None
    assert len(reference.edges) < 17
    assert list(reference.edges) == sorted(set(reference.edges))
    assert sum(reference.cells) == 100
    assert reference.cells[0] == reference.cells[-1] == 0


def test_a_constant_feature_has_one_bin_with_a_width() -> None:
    reference = numeric_reference("x", np.full(10, 3.5))
    assert reference.cells == (0, 10, 0)
    assert count(reference, np.array([3.4, 3.5, 3.6])).cells == [1, 1, 1]


def test_missing_values_of_the_reference_are_kept_apart() -> None:
    reference = numeric_reference("x", np.array([1.0, np.nan, 2.0, 3.0]), bins=2)
    assert reference.missing == 1
    assert sum(reference.cells) == 3


@pytest.mark.parametrize(
    ("value", "offset"),
    [
        (0.0, 0), (0.5, 128), (np.nextafter(1.0, 0), 255), (1.0, 0), (3.0, 128), (4.0, 255), (-1.0, 64),
        (8.0, 256), (1e300, MAX_OFFSET), (np.inf, MAX_OFFSET), (-np.inf, MAX_OFFSET),
    ],
)  # fmt: skip
def test_an_offset_says_how_far_a_value_is_into_its_cell(value: float, offset: int) -> None:
    counts = count(NUMERIC, np.array([value]))
    assert counts.offsets == [offset if cell else 0 for cell in counts.cells]


def test_offsets_give_the_mean_of_every_bin() -> None:
    values = np.random.default_rng(5).gamma(2.0, size=4000)
    reference = numeric_reference("x", values)
    assert reference.edges is not None
    cell = np.minimum(DEFAULT_BINS, np.searchsorted(reference.edges, values, side="right"))
    for number, (left, right) in enumerate(pairwise(reference.edges), start=1):
        into = (reference.offsets[number] / reference.cells[number] + 0.5) / OFFSET_UNITS
        mean = left + into * (right - left)
        assert abs(mean - values[cell == number].mean()) <= 1.5 / OFFSET_UNITS * (right - left)


@pytest.mark.parametrize("edges", [(0.0, 5e-324), (-1.7e308, 1.7e308), (1.7e9, 1.7e9 + 1e-3)])
def test_edges_of_any_scale_give_offsets_that_can_be(edges: tuple[float, ...]) -> None:
    reference = FeatureReference("x", cells=(0,) * 3, edges=edges)
    counts = count(reference, np.array([-np.inf, -1.0, *edges, 3e9, np.inf]))
    check_counts(counts)
    assert counts.total == 6


def test_merging_is_addition() -> None:
    left = FeatureCounts([1, 2], missing=1, minimum=0.0, maximum=2.0, offsets=[10, 20])
    right = FeatureCounts([3, 4], missing=2, minimum=-1.0, maximum=1.0, offsets=[30, 40])
    assert left.merged(right) == FeatureCounts([4, 6], 3, -1.0, 2.0, offsets=[40, 60])
    assert (left.cells, left.offsets) == ([1, 2], [10, 20])  # neither side is changed


def test_with_counts_of_an_older_agent_the_offsets_are_not_known() -> None:
    left, right = FeatureCounts([1, 2, 3], offsets=[1, 1, 1]), FeatureCounts([1, 2, 3])
    assert left.merged(right) == right.merged(left) == FeatureCounts([2, 4, 6])


@pytest.mark.parametrize(
    "counts",
    [
        FeatureCounts([1, 1, 1], offsets=[0, 256, 0]),
        FeatureCounts([1, 1, 0], offsets=[0, 0, 1]),
        FeatureCounts([1, 1, 1], offsets=[MAX_OFFSET + 1, 0, 0]),
        FeatureCounts([1, 1, 1], offsets=[0, 0]),
        FeatureCounts([1, 1], offsets=[0, 0]),
        FeatureCounts([1], minimum=0.0),
        FeatureCounts([1], maximum=0.0),
        FeatureCounts([1], minimum=1.0, maximum=0.0),
        FeatureCounts([1], minimum=np.nan, maximum=np.nan),
    ],
)
def test_counts_that_cannot_be_are_refused(counts: FeatureCounts) -> None:
    with pytest.raises(InvalidMessage):
        check_counts(counts)


def test_inner_edges_are_short_unless_that_would_make_them_coincide() -> None:
    values = np.random.default_rng(6).normal(size=1000)
    edges = numeric_reference("x", values).edges
    assert edges is not None
    assert all(len(repr(abs(edge))) <= 12 for edge in edges[1:-1])
    assert (edges[0], edges[-1]) == (values.min(), values.max())
    stamps = numeric_reference("x", 1.7e9 + np.arange(1000) / 1000).edges
    assert stamps is not None
    assert len(stamps) == DEFAULT_BINS + 1


def test_different_layouts_cannot_be_merged() -> None:
    with pytest.raises(InvalidMessage):
        FeatureCounts([1, 2]).merged(FeatureCounts([1, 2, 3]))
    with pytest.raises(InvalidMessage):
        merge_profiles({"x": FeatureCounts([1])}, {"x": FeatureCounts([1, 2])})


def test_a_feature_of_one_profile_only_is_kept() -> None:
    merged = merge_profiles({"a": FeatureCounts([1])}, {"b": FeatureCounts([2])})
    assert merged == {"a": FeatureCounts([1]), "b": FeatureCounts([2])}


def test_categorical_references_have_a_cell_for_the_unseen() -> None:
    assert categorical_reference("c", np.array([0, 1, 1, 1]), 3).cells == (1, 3, 0, 0)


def test_features_of_predictions() -> None:
    inputs = np.array([[[0.0, 2.0], [0.0, 2.0]], [[5.0, 5.0], [5.0, 5.0]]], dtype=np.float32)
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    names = (*FEATURES_OF_TASK["classification"], INPUT_MEAN, INPUT_CONTRAST)
    values = extract(names, inputs, probabilities)
    assert values[OUTPUT_CLASS].tolist() == [1, 0]
    assert values[OUTPUT_CONFIDENCE].tolist() == [0.75, 0.5]
    assert values[INPUT_MEAN].tolist() == [1.0, 5.0]
    assert values[INPUT_CONTRAST].tolist() == [1.0, 0.0]


def test_counting_the_reference_sample_gives_the_reference() -> None:
    random = np.random.RandomState(1)
    inputs = random.uniform(size=(300, 8, 8)).astype(np.float32)
    probabilities = random.dirichlet(np.ones(10), 300).astype(np.float32)
    reference = build_reference("classification", inputs, probabilities)
    counted = count_block(reference, inputs, probabilities)
    assert {f.name: list(f.cells) for f in reference.features} == {n: c.cells for n, c in counted.items()}
    by_name = {feature.name: feature for feature in reference.features}
    assert by_name[OUTPUT_CONFIDENCE].edges == CONFIDENCE_EDGES
    assert by_name[OUTPUT_CLASS].edges is None
    assert len(by_name[OUTPUT_CLASS].cells) == 11


def test_a_profile_stays_small_on_the_wire() -> None:
    random = np.random.RandomState(2)
    inputs, probabilities = random.uniform(size=(500, 64)), random.dirichlet(np.ones(10), 500)
    profile = count_block(build_reference("classification", inputs, probabilities), inputs, probabilities)
    assert len(encode_profile(profile)) < 650
