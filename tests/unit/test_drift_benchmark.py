"""The drift benchmark judges cases that are what they are called, here as by Evidently's own criteria."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift_cases import DRIFTS, REFERENCE_ROWS, current_table, is_categorical, reference_table
from benchmarks.drift_simulation import by_evidently, found_at_once, profile_of


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
