"""Answers put aside to be counted together: copied into memory that is taken once and used again.

Counting costs about as much for one answer as for hundreds, and more than a small model's inference. What is
put aside is copied, because the caller's memory is a buffer that the next request overwrites; and always to
the same place, because memory that was just used is what a processor is quick with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.drift.profile import ReferenceProfile

MAX_SAMPLES = 512
MAX_SIZE_BYTES = 128 * 1024  # more would not stay in a processor's cache while it is counted


class Taken(NamedTuple):
    """What was in a block.

    Attributes:
        inputs: Shape (N, …).
        outputs: Shape (N, …).
        embedding: Shape (N, K); None of a model that has none.
        durations_us: What the runtime took, in µs, shape (requests,).
    """

    inputs: NDArray[Any]
    outputs: NDArray[Any]
    embedding: NDArray[Any] | None
    durations_us: NDArray[np.float64]


class Block:
    """Room for the answers to requests whose samples have one shape and type.

    Args:
        reference: What of them is profiled.
        inputs: Of a first request, shape (N, …): says what samples are like; it is not put aside yet.
        outputs: Its outputs, shape (N, …).
        embedding: Its embedding, shape (N, K); None of a model that has none.
    """

    def __init__(
        self,
        reference: ReferenceProfile,
        inputs: NDArray[Any],
        outputs: NDArray[Any],
        embedding: NDArray[Any] | None = None,
    ) -> None:
        samples = len(outputs)
        size_bytes = inputs.nbytes + outputs.nbytes + (0 if embedding is None else embedding.nbytes)
        sample_bytes = max(1, size_bytes // samples)
        room = max(samples, min(MAX_SAMPLES, MAX_SIZE_BYTES // sample_bytes))
        self.reference = reference
        self.input_shape = inputs.shape[1:]
        self.output_shape = outputs.shape[1:]
        self.is_lasting = sample_bytes * room <= MAX_SIZE_BYTES
        """Whether it is worth keeping when it is empty."""
        self._room = room
        self._inputs = np.empty((room, *self.input_shape), inputs.dtype)
        self._outputs = np.empty((room, *self.output_shape), outputs.dtype)
        self._embeddings = None if embedding is None else np.empty((room, embedding.shape[1]), np.float32)
        self._durations_us: list[float] = []
        self._samples = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is put aside."""
        return self._samples == 0

    def add(
        self,
        inputs: NDArray[Any],
        outputs: NDArray[Any],
        duration_us: float,
        embedding: NDArray[Any] | None = None,
    ) -> bool:
        """Put a request aside, if there is room for it; tell whether there was.

        Args:
            inputs: Shape (N, …), the samples like the first's.
            outputs: Shape (N, …), likewise.
            duration_us: What the runtime took.
            embedding: Shape (N, K), if the first had one.
        """
        start, samples = self._samples, len(outputs)
        end = start + samples
        if end > self._room:
            return False
        place = start if samples == 1 else slice(start, end)
        self._inputs[place] = inputs
        self._outputs[place] = outputs
        if self._embeddings is not None:
            self._embeddings[place] = embedding
        self._durations_us.append(duration_us)
        self._samples = end
        return True

    def take(self) -> Taken:
        """Empty the block; return what was in it, to be used before anything is put aside again."""
        samples, self._samples = self._samples, 0
        durations_us, self._durations_us = np.array(self._durations_us), []
        embedding = None if self._embeddings is None else self._embeddings[:samples]
        return Taken(self._inputs[:samples], self._outputs[:samples], embedding, durations_us)
