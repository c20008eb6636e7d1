"""Batches: how many samples there are, and so many of them at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.data.samples import Inputs


def sample_count(inputs: Inputs) -> int:
    """Return the number of samples, N."""
    return len(next(iter(inputs.values())))


def in_batches(inputs: Inputs, size: int, *, fill: bool = False) -> Iterator[Inputs]:
    """Yield the samples, in their order, a batch at a time.

    Args:
        inputs: N samples.
        size: Of a batch.
        fill: Repeat the last sample until the last batch is as large as the others, for models that take
            nothing else; if not, it has what is left.
    """
    count = sample_count(inputs)
    for start in range(0, count, size):
        batch = {name: array[start : start + size] for name, array in inputs.items()}
        if fill and start + size > count:
            indices = np.minimum(np.arange(size), count - start - 1)
            batch = {name: array[indices] for name, array in batch.items()}
        yield batch
