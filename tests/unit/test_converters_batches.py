"""Batches: every sample once, in order, and the last one again only to fill."""

from __future__ import annotations

import numpy as np
import pytest

from converters.data.batches import in_batches, sample_count

INPUTS = {"x": np.arange(14, dtype=np.float32).reshape(7, 2), "word": np.array([["a"]] * 7, dtype=object)}


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_batches_hold_every_sample_once_in_order(size: int) -> None:
    batches = list(in_batches(INPUTS, size))
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches]), INPUTS["x"])
    assert sum(map(sample_count, batches)) == sample_count(INPUTS) == 7
    assert all(sample_count(batch) == size for batch in batches[:-1])
    assert all(len(batch["word"]) == len(batch["x"]) for batch in batches)


@pytest.mark.parametrize("size", [3, 7, 20])
def test_the_last_batch_is_filled_with_the_last_sample(size: int) -> None:
    batches = list(in_batches(INPUTS, size, fill=True))
    assert all(sample_count(batch) == size for batch in batches)
    whole = np.concatenate([batch["x"] for batch in batches])
    np.testing.assert_array_equal(whole[:7], INPUTS["x"])
    np.testing.assert_array_equal(whole[7:], np.broadcast_to(INPUTS["x"][-1], (len(whole) - 7, 2)))
