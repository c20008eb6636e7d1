"""Answers put aside to be counted together: copied into memory that is taken once and used again.

Counting costs about as much for one answer as for hundreds, and more than a small model's inference. What is
put aside is copied, because the caller's memory is a buffer that the next request overwrites.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.drift.profile import ReferenceProfile

MAX_SAMPLES = 512
MAX_SIZE_BYTES = 128 * 1024  # more would not stay in a processor's cache while it is counted


class Block:
    """Room for the answers of requests whose samples have one shape and type.

    Args:
        reference: What of them is profiled.
        inputs: Of a first request, shape (N, …): says what the samples are like; not put aside yet.
        outputs: Its outputs, shape (N, …).
    """

    def __init__(self, reference: ReferenceProfile, inputs: NDArray[Any], outputs: NDArray[Any]) -> None:
        self.reference = reference
        sample_bytes = max(1, (inputs.nbytes + outputs.nbytes) // max(1, len(inputs)))
        self._room = min(MAX_SAMPLES, max(1, MAX_SIZE_BYTES // sample_bytes))
        self._input_shape, self._output_shape = inputs.shape[1:], outputs.shape[1:]
        self._inputs = np.empty((self._room, *self._input_shape), inputs.dtype)
        self._outputs = np.empty((self._room, *self._output_shape), outputs.dtype)
        self._durations_us = np.empty(self._room)
        self._samples = 0
        self._requests = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is put aside."""
        return self._requests == 0

    def takes(self, reference: ReferenceProfile, inputs: NDArray[Any], outputs: NDArray[Any]) -> bool:
        """Whether the samples of a request are like those of the first, and profiled like them."""
        return (
            reference is self.reference
            and inputs.shape[1:] == self._input_shape
            and outputs.shape[1:] == self._output_shape
            and inputs.dtype == self._inputs.dtype
            and outputs.dtype == self._outputs.dtype
        )

    def add(self, inputs: NDArray[Any], outputs: NDArray[Any], duration_us: float) -> bool:
        """Put a request aside that the block takes; False if there is no room left."""
        start = self._samples
        end = start + len(inputs)
        if end > self._room:
            return False
        self._inputs[start:end] = inputs
        self._outputs[start:end] = outputs
        self._durations_us[self._requests] = duration_us
        self._samples = end
        self._requests += 1
        return True

    def take(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Empty the block; return what was in it, to be used before anything is put aside again.

        Returns:
            Inputs of shape (N, …), outputs of shape (N, …), durations in µs of shape (requests,).
        """
        samples, requests, self._samples, self._requests = self._samples, self._requests, 0, 0
        return self._inputs[:samples], self._outputs[:samples], self._durations_us[:requests]
