"""Counting how a candidate compares with the version that answers, until a `ShadowReport` tells it."""

from __future__ import annotations

import time
from collections import Counter
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.hosting.hosted import Hosted
from fleet.protocol.errors import ShadowFailed
from fleet.protocol.latency import bucket
from fleet.protocol.records import MAX_PAIRS, ShadowReport
from fleet.protocol.shadow import (
    disagreeing_classes,
    disagreeing_values,
    lowest_pairs,
    numbers_of_classes,
    why_incomparable,
)

PAIRS_IN_MEMORY = 16 * MAX_PAIRS
"""A thousand classes have a million pairs."""


class Comparison:
    """Counts of one candidate beside one active version. Any thread may count.

    Args:
        active: The version that answers.
        candidate: The version in its shadow.
        deployment_id: The order that the candidate came with.

    Raises:
        ShadowFailed: The two cannot be compared.
    """

    def __init__(self, active: Hosted, candidate: Hosted, deployment_id: str) -> None:
        theirs, ours = active.manifest.signature, candidate.manifest.signature
        self.active_version = active.release.version
        why = why_incomparable(theirs, ours)
        if why is not None:
            raise ShadowFailed(
                f"The candidate cannot be compared with version {self.active_version}: {why}.",
                remedy="Order it without a shadow.",
            )
        self.active_output = theirs.outputs[0].name
        self._candidate_output = ours.outputs[0].name
        self._is_classification = ours.task == "classification"
        self._numbers = numbers_of_classes(theirs, ours)
        self._model = candidate.manifest.model
        self._release = candidate.release
        self._deployment_id = deployment_id
        self._has_reported = False
        self._lock = Lock()
        self._begin(time.time())

    def _begin(self, now_s: float) -> None:
        self._started_at_s = now_s
        self._compared = 0
        self._disagreed = 0
        self._errors = 0
        self._not_finite = 0
        self._left_out = 0
        self._active_latency: Counter[int] = Counter()
        self._candidate_latency: Counter[int] = Counter()
        self._pairs: Counter[tuple[int, int]] = Counter()

    def count(
        self,
        answer: NDArray[Any],
        outputs: dict[str, NDArray[Any]],
        *,
        active_us: float,
        candidate_us: float,
    ) -> None:
        """Count one request that both computed.

        Args:
            answer: The active version's first output, shape (N, …).
            outputs: What the candidate answered, by name.
            active_us: How long the active version's runtime took.
            candidate_us: How long the candidate's took.

        Raises:
            ShadowFailed: The candidate's answer is none. It is counted as such.
        """
        samples, given = len(answer), outputs[self._candidate_output]
        if not all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f"):
            raise self.failed("It answered with values that are not finite.", finite=False)
        if given.shape[:1] != (samples,) or given.size == 0:
            raise self.failed(f"It answered {samples} sample(s) with the shape {given.shape}.")
        disagrees, pairs = self._disagreement(answer, given)
        with self._lock:
            self._compared += samples
            self._disagreed += int(disagrees.sum())
            self._active_latency[bucket(active_us)] += 1
            self._candidate_latency[bucket(candidate_us)] += 1
            self._pairs.update(pairs)
            if len(self._pairs) > PAIRS_IN_MEMORY:  # those that are not among the lowest are not told anyway
                lowest = lowest_pairs((*pair, number) for pair, number in self._pairs.items())
                self._pairs = Counter({(active, ours): number for active, ours, number in lowest})

    def failed(self, why: str, *, finite: bool = True) -> ShadowFailed:
        """Count a request on which the candidate failed, and return what to raise.

        Args:
            why: One sentence.
            finite: Whether its answer was finite, if there was one.
        """
        with self._lock:
            self._errors += finite
            self._not_finite += not finite
        return ShadowFailed(
            f"The candidate failed on an input that version {self.active_version} answered: {why}"
        )

    def leave_out(self, requests: int) -> None:
        """Count requests that the candidate is not given."""
        with self._lock:
            self._left_out += requests

    def take_report(self) -> ShadowReport | None:
        """Return what was counted since the last report; None if nothing was, except for the first time."""
        with self._lock:
            now_s = time.time()
            seen = self._compared + self._errors + self._not_finite + self._left_out
            if self._has_reported and not seen:
                return None
            self._has_reported = True
            report = ShadowReport(
                started_at_s=min(self._started_at_s, now_s),
                ended_at_s=now_s,
                deployment_id=self._deployment_id,
                model=self._model,
                active_version=self.active_version,
                version=self._release.version,
                manifest_sha256=self._release.manifest_sha256,
                compared=self._compared,
                disagreed=self._disagreed,
                errors=self._errors,
                not_finite=self._not_finite,
                left_out=self._left_out,
                active_latency=dict(self._active_latency),
                candidate_latency=dict(self._candidate_latency),
                pairs=lowest_pairs((*pair, number) for pair, number in self._pairs.items()),
            )
            self._begin(now_s)
        return report

    def _disagreement(
        self, answer: NDArray[Any], given: NDArray[Any]
    ) -> tuple[NDArray[np.bool_], list[tuple[int, int]]]:
        """Return on which samples the two disagree, and for classifiers the pair of classes of each."""
        if not self._is_classification:
            return disagreeing_values(answer, given), []
        active = answer.reshape(len(answer), -1).argmax(axis=1)
        candidate = given.reshape(len(given), -1).argmax(axis=1)
        disagrees = disagreeing_classes(active, candidate, self._numbers)
        return disagrees, list(zip(active[disagrees].tolist(), candidate[disagrees].tolist(), strict=True))
