"""Counting what a version does, in windows of time.

An answer costs a copy into a `Block`; blocks are counted when they are full and when the window ends. Any
thread may count.

Large inputs would cost more to profile than to answer: 110 KB, some 100 µs. Of samples with more than
`PROFILED_NUMBERS` numbers only every so many is profiled by its input, so that profiling costs no sample more
than those numbers would. Which ones is told by the multiples of the golden ratio, modulo 1: they are spread
evenly and follow no period that a device's inputs may have, such as cameras that take turns. Outputs and
embeddings are always all counted.

Source: Knuth, "The Art of Computer Programming", volume 3, section 6.4 (Fibonacci hashing).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.telemetry.block import Block
from fleet.drift.features import count_block, reads_inputs
from fleet.drift.profile import ReferenceProfile, merge_profiles
from fleet.privacy.windows import whole
from fleet.protocol.labels import NO_LABELS, Labels
from fleet.protocol.latency import LatencyCounts, count_durations, merge_latency
from fleet.protocol.manifest import Manifest
from fleet.protocol.records import TelemetryWindow
from fleet.quality.calibration import labelled_cells

PROFILED_NUMBERS = 1024
RECENT_REQUESTS = 1000
CLOCK_STEP_S = 1.0
"""A wall clock that is off by more from the time that has passed was set: it says when, not how long."""
_GOLDEN_STEP = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio


class Pace(NamedTuple):
    """How fast a version answered lately.

    Attributes:
        latency: Durations of the runtime's work, by request.
        predictions: Samples that were answered in them.
    """

    latency: LatencyCounts
    predictions: int

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return sum(self.latency.values())

    def halved(self) -> Pace:
        """Return half of it, so that what comes next weighs more."""
        halves = {bucket: number // 2 for bucket, number in self.latency.items() if number > 1}
        return Pace(halves, self.predictions * sum(halves.values()) // max(1, self.requests))


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
        self._of_outputs = _only(manifest.reference, of_inputs=False)
        self._of_inputs = _only(manifest.reference, of_inputs=True)
        self._lock = Lock()
        self._block: Block | None = None
        self._turn = 0
        self.is_noised = False
        """Whether the counts get noise before they leave the device, see `fleet.privacy.windows`: then there
        is a window in any case, with every feature, and whether a sample's large input is profiled depends on
        no other sample."""
        self._window: TelemetryWindow | None = None
        self._recent = Pace({}, 0)
        self._started_at_s = 0.0  # Unix time
        self._started_s = time.monotonic()

    def begin(self, now_s: float) -> None:
        """Set the time from which the current window counts, if it has not begun."""
        with self._lock:
            if self._started_at_s == 0.0:
                self._started_at_s, self._started_s = now_s, time.monotonic()

    def count(
        self,
        inputs: NDArray[Any],
        outputs: NDArray[Any],
        duration_us: float,
        embedding: NDArray[Any] | None = None,
    ) -> None:
        """Count one answered request; nothing of the arrays is kept.

        Args:
            inputs: The numbers that the model was given, shape (N, …).
            outputs: Its first output, shape (N, …).
            duration_us: What the runtime took.
            embedding: Shape (N, K); None of a model that has none.
        """
        reference, samples = self._manifest.reference, len(inputs)
        with self._lock:
            if inputs.size > PROFILED_NUMBERS * samples:
                self._profile_some(inputs, outputs)
                reference, inputs = self._of_outputs, np.empty((samples, 0), np.float32)
            block = self._block
            if (
                block is None
                or block.reference is not reference
                or block.input_shape != inputs.shape[1:]
                or block.output_shape != outputs.shape[1:]
            ):
                self._count_waiting()
                block = self._block = Block(reference, inputs, outputs, embedding)
            if not block.add(inputs, outputs, duration_us, embedding):
                self._count_waiting()
                if not block.add(inputs, outputs, duration_us, embedding):
                    block = self._block = Block(reference, inputs, outputs, embedding)
                    block.add(inputs, outputs, duration_us, embedding)
            if not block.is_lasting:
                self._count_waiting()
                self._block = None

    def count_error(self) -> None:
        """Count a request that the runtime failed on."""
        with self._lock:
            self._current().errors += 1

    def count_labels(self, are_correct: Sequence[bool], confidences: Sequence[float]) -> None:
        """Count answers whose truth came to be known.

        Args:
            are_correct: Whether each was right.
            confidences: The greatest number of each.
        """
        correct = sum(are_correct)
        counted = Labels(labelled_cells(self._manifest.reference, are_correct, confidences))
        with self._lock:
            window = self._current()
            window.labelled += len(are_correct)
            window.correct += correct
            self._add_labels(window, counted)

    def count_unknown_label(self) -> None:
        """Count that labels came for a prediction that nobody knows."""
        with self._lock:
            self._add_labels(self._current(), Labels(unknown=1))

    def close(self, now_s: float) -> TelemetryWindow | None:
        """End the window and begin the next; None if nothing was counted, unless the counts get noise.

        Args:
            now_s: Unix time.
        """
        with self._lock:
            self._count_waiting()
            if self.is_noised:
                self._current().profile = whole(self._current().profile, self._manifest.reference)
            window, self._window = self._window, None
            started_at_s, started_s = self._started_at_s or now_s, self._started_s
            self._started_at_s, self._started_s = now_s, time.monotonic()
        if window is None:
            return None
        lasted_s = self._started_s - started_s
        if abs(now_s - started_at_s - lasted_s) > CLOCK_STEP_S:
            started_at_s = now_s - lasted_s  # the clock was set meanwhile
        window.started_at_s = min(started_at_s, now_s)
        window.ended_at_s = now_s
        return window

    def recent(self) -> Pace:
        """Return how fast it answered the last requests, `RECENT_REQUESTS` or so, also of ended windows."""
        with self._lock:
            self._count_waiting()
            return self._recent

    def _add_labels(self, window: TelemetryWindow, counted: Labels) -> None:
        if counted != NO_LABELS:
            window.labels = window.label_counts.merged(counted)

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
        block = self._block
        if block is None or block.is_empty:
            return
        inputs, outputs, embedding, durations_us = block.take()
        window = self._current()
        window.predictions += len(outputs)
        counted = count_durations(durations_us)
        window.latency = merge_latency(window.latency, counted)
        if self._recent.requests > RECENT_REQUESTS:
            self._recent = self._recent.halved()
        recent = self._recent
        self._recent = Pace(merge_latency(recent.latency, counted), recent.predictions + len(outputs))
        self._profile(block.reference, inputs, outputs, embedding)

    def _profile_some(self, inputs: NDArray[Any], outputs: NDArray[Any]) -> None:
        """Profile those samples of a request with large inputs whose turn it is."""
        samples = len(inputs)
        share = 2**64 * PROFILED_NUMBERS * samples // inputs.size
        for number in range(samples):
            if (secrets.randbits(64) if self.is_noised else self._turn) < share:
                self._profile(self._of_inputs, inputs[number : number + 1], outputs[number : number + 1])
            self._turn = (self._turn + _GOLDEN_STEP) % 2**64

    def _profile(
        self,
        reference: ReferenceProfile,
        inputs: NDArray[Any],
        outputs: NDArray[Any],
        embedding: NDArray[Any] | None = None,
    ) -> None:
        window = self._current()
        counted = count_block(reference, inputs, outputs, embedding)
        window.profile = merge_profiles(window.profile, counted)


def _only(reference: ReferenceProfile, *, of_inputs: bool) -> ReferenceProfile:
    """Return the part of a profile that reads large inputs, or the rest."""
    features = reference.features
    return ReferenceProfile(tuple(each for each in features if reads_inputs(each.name) is of_inputs))
