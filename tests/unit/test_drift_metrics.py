"""Distances between histograms, against values worked out by hand and against the samples themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fleet.drift.metrics import (
    PSI_SMOOTHING,
    anderson_darling,
    chi_square,
    jensen_shannon,
    ks_distance,
    psi,
    total_variation,
)
from fleet.drift.profile import count, numeric_reference
from fleet.protocol.errors import InvalidMessage

Distance = Callable[[Sequence[int], Sequence[int]], float]
ALL: list[Distance] = [
    ks_distance, total_variation, psi, jensen_shannon, anderson_darling,
    lambda left, right: chi_square(left, right)[0],
]  # fmt: skip


def test_values_by_hand() -> None:
    left, right = [5, 3, 2], [1, 3, 6]
    assert ks_distance(left, right) == pytest.approx(0.4)
    assert total_variation(left, right) == pytest.approx(0.4)
    shares = [
        ((a + PSI_SMOOTHING) / 11.5, (b + PSI_SMOOTHING) / 11.5) for a, b in zip(left, right, strict=True)
    ]
    assert psi(left, right) == pytest.approx(sum((p - q) * math.log(p / q) for p, q in shares))


def test_what_lies_apart_is_as_far_as_can_be() -> None:
    assert ks_distance([10, 0], [0, 10]) == 1.0
    assert total_variation([10, 0], [0, 10]) == 1.0
    assert math.isfinite(psi([10, 0], [0, 10]))


@pytest.mark.parametrize("distance", ALL)
def test_distances_ignore_the_sample_size_but_not_the_shape(distance: Distance) -> None:
    assert distance([10, 20, 30], [10, 20, 30]) <= 0.0
    assert distance([1, 2], [2, 1]) == pytest.approx(distance([2, 1], [1, 2]))
    assert distance([100, 200], [200, 100]) > 0.1


@pytest.mark.parametrize("distance", ALL)
def test_an_empty_side_has_no_distance(distance: Distance) -> None:
    assert distance([0, 0], [3, 4]) == 0.0
    assert distance([3, 4], [0, 0]) == 0.0
    assert distance([], []) == 0.0


@pytest.mark.parametrize("distance", ALL)
def test_layouts_that_differ_and_negative_counts_are_refused(distance: Distance) -> None:
    with pytest.raises(InvalidMessage):
        distance([1, 2], [1, 2, 3])
    with pytest.raises(InvalidMessage):
        distance([1, -2], [1, 2])


def test_counts_are_never_further_apart_than_their_samples() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        left, right = rng.normal(size=300), rng.normal(rng.uniform(-1, 1), size=200)
        reference = numeric_reference("x", left)
        both = np.sort(np.concatenate([left, right]))
        exact = np.abs(
            np.searchsorted(np.sort(left), both, side="right") / left.size
            - np.searchsorted(np.sort(right), both, side="right") / right.size
        ).max()
        assert ks_distance(reference.cells, count(reference, right).cells) <= exact + 1e-12
