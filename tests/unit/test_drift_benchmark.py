"""The drift benchmark compares like with like: other ways of counting count the same, cases are as named."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift_cases import DRIFTS, REFERENCE_ROWS, current_table, is_categorical, reference_table
from benchmarks.drift_profiles import grid_way, tallied
from benchmarks.drift_simulation import by_evidently, found_at_once, profile_of
from fleet.drift.profile import count, numeric_reference


def test_a_grid_counts_as_a_search_does() -> None:
    rng = np.random.default_rng(1)
    reference = numeric_reference("x", rng.standard_t(2, 5000))
    values = rng.standard_t(2, 20_000) * 2.0
    edges = np.asarray(reference.edges)
    by_grid = grid_way(edges)(values)
    assert np.array_equal(by_grid, tallied(np.searchsorted(edges, values, side="right"), edges))
    assert by_grid.tolist() == count(reference, values).cells


@pytest.mark.parametrize("drift", DRIFTS)
def test_cases_are_what_they_are_called(drift: str) -> None:
    rng = np.random.default_rng(2)
    reference, current = reference_table(rng, drift, 1)[:, 0], current_table(rng, drift, 3000, 1)[:, 0]
    assert len(reference) == REFERENCE_ROWS
    assert np.issubdtype(current.dtype, np.integer) == is_categorical(drift)
    profile = profile_of(reference, drift)
    is_none = drift.startswith("none")
    assert found_at_once(profile, current) is not is_none
    if "missing" not in drift:
        assert by_evidently(profile.features[0], current) is not is_none
