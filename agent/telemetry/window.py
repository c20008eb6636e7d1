"""Counting what a version does, in windows of time.

Predictions are put aside and counted in blocks: counting one costs about as much as counting sixty-four,
and more than a small model's inference. What waits is bounded by number and by size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.drift.features import count_block
from fleet.drift.profile import merge_profiles
from fleet.protocol.latency import bucket
from fleet.protocol.manifest import Manifest
from fleet.protocol.messages import TelemetryWindow

BLOCK_SAMPLES = 64
BLOCK_SIZE_BYTES = 1024**2


class Counter:
    """Counts of one version since its current window began.

    Args:
        manifest: Holds the reference profile, which gives the cells to count into.
        variant: Name of the variant.
        manifest_sha256: The version's bundle.
    """

    def __init__(self, manifest: Manifest, variant: str, manifest_sha256: str) -> None:
        self._manifest = manifest
        self._variant = variant
        self._sha256 = manifest_sha256
        self._waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._window: TelemetryWindow | None = None
        self._started_at_s = 0.0

    def begin(self, now_s: float) -> None:
        """Set the time from which the current window counts, if it has not begun."""
        if self._started_at_s == 0.0:
            self._started_at_s = now_s

    def count(self, inputs: NDArray[Any], outputs: NDArray[Any], duration_us: float) -> None:
        """Count one answered request.

        Args:
            inputs: The numbers that the model was given, shape (N, …).
            outputs: Its first output, shape (N, …).
            duration_us: What the runtime took.
        """
        window = self._current()
        window.predictions += len(inputs)
        slot = bucket(duration_us)
        window.latency[slot] = window.latency.get(slot, 0) + 1
        if self._waiting and [array.shape[1:] for array in self._waiting[0]] != [
            inputs.shape[1:],
            outputs.shape[1:],
        ]:
            self._count_waiting()  # only samples of one shape make a block
        self._waiting.append((inputs, outputs))
        samples = sum(len(block) for block, _ in self._waiting)
        size_bytes = sum(given.nbytes + answered.nbytes for given, answered in self._waiting)
        if samples >= BLOCK_SAMPLES or size_bytes >= BLOCK_SIZE_BYTES:
            self._count_waiting()

    def count_error(self) -> None:
        """Count a request that the runtime failed on."""
        self._current().errors += 1

    def count_labels(self, labelled: int, correct: int) -> None:
        """Count answers whose truth came to be known."""
        window = self._current()
        window.labelled += labelled
        window.correct += correct

    def close(self, now_s: float) -> TelemetryWindow | None:
        """End the window and begin the next; None if nothing was counted.

        Args:
            now_s: Unix time.
        """
        self._count_waiting()
        window, self._window = self._window, None
        started_at_s, self._started_at_s = self._started_at_s, now_s
        if window is None:
            return None
        window.started_at_s = min(started_at_s or now_s, now_s)
        window.ended_at_s = now_s
        return window

    def _current(self) -> TelemetryWindow:
        if self._window is None:
            self._window = TelemetryWindow(
                started_at_s=0.0,
                ended_at_s=0.0,
                model=self._manifest.model,
                version=self._manifest.version,
                manifest_sha256=self._sha256,
                variant=self._variant,
            )
        return self._window

    def _count_waiting(self) -> None:
        if not self._waiting:
            return
        inputs = np.concatenate([block for block, _ in self._waiting])
        outputs = np.concatenate([block for _, block in self._waiting])
        self._waiting = []
        window = self._current()
        counted = count_block(self._manifest.reference, inputs, outputs)
        window.profile = merge_profiles(window.profile, counted)
