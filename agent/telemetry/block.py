"""Answers put aside to be counted together: copied into memory that is taken once and used again.

Counting costs about as much for one answer as for hundreds, and more than a small model's inference. What is
put aside is copied, because the caller's memory is a buffer that the next request overwrites; and always to
the same place, because memory that was just used is what a processor is quick with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.drift.profile import ReferenceProfile

MAX_SAMPLES = 512
MAX_SIZE_BYTES = 128 * 1024  # more would not stay in a processor's cache while it is counted


class Block:
    """Room for the answers to requests whose samples have one shape and type.

    Args:
        reference: What of them is profiled.
        inputs: Of a first request, shape (N, …): says what samples are like; it is not put aside yet.
        outputs: Its outputs, shape (N, …).
    """

    def __init__(self, reference: ReferenceProfile, inputs: NDArray[Any], outputs: NDArray[Any]) -> None:
        samples = len(outputs)
        sample_bytes = max(1, (inputs.nbytes + outputs.nbytes) // samples)
        room = max(samples, min(MAX_SAMPLES, MAX_SIZE_BYTES // sample_bytes))
        self.reference = reference
        self.input_shape = inputs.shape[1:]
        self.output_shape = outputs.shape[1:]
        self.is_lasting = sample_bytes * room <= MAX_SIZE_BYTES
        """Whether it is worth keeping when it is empty."""
        self._room = room
        self._inputs = np.empty((room, *self.input_shape), inputs.dtype)
        self._outputs = np.empty((room, *self.output_shape), outputs.dtype)
        self._durations_us: list[float] = []
        self._samples = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is put aside."""
        return self._samples == 0

    def add(self, inputs: NDArray[Any], outputs: NDArray[Any], duration_us: float) -> bool:
        """Put a request aside, if there is room for it; tell whether there was.

        Args:
            inputs: Shape (N, …), the samples like the first's.
            outputs: Shape (N, …), likewise.
            duration_us: What the runtime took.
        """
        start, samples = self._samples, len(outputs)
        end = start + samples
        if end > self._room:
            return False
        place = start if samples == 1 else slice(start, end)
        self._inputs[place] = inputs
        self._outputs[place] = outputs
        self._durations_us.append(duration_us)
        self._samples = end
        return True

    def take(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Empty the block; return what was in it, to be used before anything is put aside again.

        Returns:
            Inputs of shape (N, …), outputs of shape (N, …), durations in µs of shape (requests,).
        """
        samples, self._samples = self._samples, 0
        durations_us, self._durations_us = np.array(self._durations_us), []
        return self._inputs[:samples], self._outputs[:samples], durations_us
