"""What distances must be for any counts, and their agreement with scipy on the values themselves."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from fleet.drift.metrics import (
    anderson_darling,
    chi_square,
    jensen_shannon,
    ks_distance,
    psi,
    total_variation,
)
from fleet.drift.profile import FeatureCounts, FeatureReference, count, numeric_reference
from fleet.drift.transport import moved, wasserstein

CELLS = st.integers(2, 12).flatmap(
    lambda cells: st.tuples(*[st.lists(st.integers(0, 500), min_size=cells, max_size=cells)] * 2)
)
SIZES = (ks_distance, total_variation, jensen_shannon)
EDGES = (-2.0, -1.0, 0.0, 0.5, 3.0)
REFERENCE = FeatureReference("x", (0,) * 6, EDGES)
VALUES = st.lists(st.floats(-20, 20), min_size=1, max_size=60)
MANY = settings(max_examples=200, derandomize=True, deadline=None)


@given(CELLS)
@MANY
def test_distances_are_symmetric_bounded_and_zero_for_the_same(pair: tuple[list[int], list[int]]) -> None:
    left, right = pair
    assume(any(left) and any(right))
    for distance in SIZES:
        assert distance(left, right) == pytest.approx(distance(right, left), abs=1e-12)
        assert 0.0 <= distance(left, right) <= 1.0 + 1e-12
        assert distance(left, left) == pytest.approx(0.0, abs=1e-7)
    assert psi(left, right) >= 0.0
    assert chi_square(left, right) == pytest.approx(chi_square(right, left))
    assert anderson_darling(left, right) == pytest.approx(anderson_darling(right, left))
    assert ks_distance(left, right) <= total_variation(left, right) + 1e-12


@given(CELLS, st.data())
@MANY
def test_merging_cells_never_moves_counts_apart(
    pair: tuple[list[int], list[int]], data: st.DataObject
) -> None:
    """Nor does cutting a cell in two empty-handed: a cell that is empty on both sides changes nothing."""
    at = data.draw(st.integers(0, len(pair[0]) - 2))
    merged = [[*side[:at], side[at] + side[at + 1], *side[at + 2 :]] for side in pair]
    widened = [[*side[:at], 0, *side[at:]] for side in pair]
    for distance in SIZES:
        assert distance(*merged) <= distance(*pair) + 1e-9
        assert distance(*widened) == pytest.approx(distance(*pair), abs=1e-12)
    assert chi_square(*merged)[0] <= chi_square(*pair)[0] + 1e-6
    assert chi_square(*widened) == pytest.approx(chi_square(*pair))
    assert anderson_darling(*widened) == pytest.approx(anderson_darling(*pair))


@given(CELLS)
@MANY
def test_statistics_are_those_of_scipy(pair: tuple[list[int], list[int]]) -> None:
    left, right = (np.array(side) for side in pair)
    assume(left.sum() > 1 and right.sum() > 1 and np.count_nonzero(left + right) > 1)
    held = left + right > 0
    expected = stats.chi2_contingency([left[held], right[held]], correction=False)
    assert chi_square(*pair) == pytest.approx((expected.statistic, expected.dof))
    assert jensen_shannon(*pair) == pytest.approx(jensenshannon(left, right, base=2), abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_anderson_darling_is_that_of_scipy_for_large_samples(shift: float) -> None:
    rng = np.random.default_rng(3)
    reference = numeric_reference("x", rng.normal(size=3000), bins=20)
    counts = count(reference, rng.normal(shift, 1.0, 2000))
    samples = [np.repeat(np.arange(22), side.cells) for side in (reference, counts)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about p-values outside a table, and another method to come
        expected = stats.anderson_ksamp(samples).statistic
    assert anderson_darling(reference.cells, counts.cells) == pytest.approx(expected, rel=0.01, abs=0.01)


@given(VALUES, VALUES)
@MANY
def test_the_way_moved_is_symmetric_and_zero_for_the_same(left: list[float], right: list[float]) -> None:
    a, b = (count(REFERENCE, np.array(values)) for values in (left, right))
    assert moved(EDGES, a, b) == pytest.approx(moved(EDGES, b, a))
    assert moved(EDGES, a, a) == pytest.approx(0.0, abs=1e-12)


@given(VALUES, st.floats(21, 100))
@MANY
def test_what_all_moves_one_way_is_exact(left: list[float], by: float) -> None:
    """Up to the unit of an offset: below and above it is 1/256 of the range of the edges."""
    right = np.array(left) + by
    distance = moved(EDGES, count(REFERENCE, np.array(left)), count(REFERENCE, right))
    unit = (EDGES[-1] - EDGES[0]) / 256
    if max(left) < EDGES[-1] and min(right) > EDGES[-1]:
        inside = np.clip(left, EDGES[0], EDGES[-1])
        far = abs(np.minimum(left, EDGES[0]).mean() - EDGES[0])
        expected = (right - EDGES[-1]).mean() + (EDGES[-1] - inside).mean() + far
        assert distance == pytest.approx(expected, abs=3 * unit)


def test_from_counts_the_distance_is_nearly_that_of_the_values() -> None:
    """The aim: a mean error of 0.002 standard deviations; and Kolmogorov-Smirnov within 1 of the bins."""
    rng = np.random.default_rng(11)
    errors = []
    for name in ("normal", "standard_exponential", "uniform"):
        for shift, scale in [(0.0, 1.0), (0.1, 1.0), (0.5, 1.0), (0.0, 1.3), (0.0, 0.7), (2.0, 1.0)]:
            sample: NDArray[np.float64] = getattr(rng, name)(size=5000)
            values = getattr(rng, name)(size=1000) * scale + shift * sample.std()
            reference = numeric_reference("x", sample)
            counts = count(reference, values)
            exact = stats.wasserstein_distance(sample, values) / sample.std()
            measured = wasserstein(reference, counts)
            assert measured is not None
            errors.append(abs(measured - exact))
            ks = stats.ks_2samp(sample, values).statistic
            assert -1e-9 <= ks - ks_distance(reference.cells, counts.cells) <= 1 / 64
    assert np.mean(errors) <= 0.002
    assert max(errors) <= 0.01


def test_what_cannot_be_said_is_not_said() -> None:
    reference = numeric_reference("x", np.arange(100.0))
    assert wasserstein(reference, FeatureCounts([1] * len(reference.cells))) is None
    assert wasserstein(reference, FeatureCounts.empty(reference)) is None
    assert wasserstein(FeatureReference("c", (1, 2)), FeatureCounts([1, 2])) is None
    constant = numeric_reference("x", np.full(10, 3.0))
    assert wasserstein(constant, count(constant, np.array([4.0]))) is None
