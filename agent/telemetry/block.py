"""Answers put aside to be counted together.

Counting costs about as much for one answer as for hundreds, and more than a small model's inference. What is
put aside is bounded by number and by size, and copied: inputs may lie in a buffer that the next request
overwrites, and outputs are the caller's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.drift.profile import ReferenceProfile

MAX_SAMPLES = 512
MAX_SIZE_BYTES = 128 * 1024  # more would not stay in a processor's cache while it is counted


class Block:
    """The answers to requests whose samples have one shape.

    Args:
        reference: What of them is profiled.
        input_shape: Of one sample.
        output_shape: Of one sample.
    """

    def __init__(
        self, reference: ReferenceProfile, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> None:
        self.reference = reference
        self.input_shape = input_shape
        self.output_shape = output_shape
        self._samples = 0
        self._size_bytes = 0
        self._inputs: list[NDArray[Any]] = []
        self._outputs: list[NDArray[Any]] = []
        self._durations_us: list[float] = []

    def add(self, inputs: NDArray[Any], outputs: NDArray[Any], duration_us: float) -> bool:
        """Put a request aside; tell whether the block is full.

        Args:
            inputs: Shape (N, …).
            outputs: Shape (N, …).
            duration_us: What the runtime took.
        """
        self._inputs.append(inputs.copy())
        self._outputs.append(outputs.copy())
        self._durations_us.append(duration_us)
        self._samples += len(outputs)
        self._size_bytes += inputs.nbytes + outputs.nbytes
        return self._samples >= MAX_SAMPLES or self._size_bytes >= MAX_SIZE_BYTES

    def take(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Return what was put aside; the block is done with.

        Returns:
            Inputs of shape (N, …), outputs of shape (N, …), durations in µs of shape (requests,).
        """
        return np.concatenate(self._inputs), np.concatenate(self._outputs), np.array(self._durations_us)
