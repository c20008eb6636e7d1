"""Noised windows of many devices added up, and what the sum shows in spite of its noise.

Noise of many windows adds up like a random walk: a sum of W windows has √W times the noise of one, and W
times its counts. So a fleet shows what none of its devices does.

**Rough drift.** For each feature the greatest difference between the shares of the sum and of the reference,
taken over all cells up to each (the Kolmogorov-Smirnov distance, for which negative cells do no harm, as they
do in a logarithm). Noise and chance alone would give about σ·E[sup |B|], where B is a Brownian bridge,
E[sup |B|] = √(π/2)·ln 2 = 0.87, and σ² = C·V / N² + 1 / N for C cells with noise of variance V on N values.
It is for people to look at: an alarm, a gate or an estimate of accuracy is made of exact counts only.

Source: Kolmogorov 1933; Marsaglia, Tsang and Wang 2003, "Evaluating Kolmogorov's distribution", for the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.batch import decode_profiles
from fleet.drift.matrix import Layout
from fleet.drift.profile import FeatureReference, ReferenceProfile
from fleet.privacy.windows import beyond_noise, unzigzag
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.noised import NoisedWindow

MEAN_SUPREMUM = math.sqrt(math.pi / 2.0) * math.log(2.0)
"""Of the absolute value of a Brownian bridge."""
CLEAR = 3.0
"""A number of values that is less than so many standard deviations of its noise is as good as nothing, and a
distance that is not over so many times what noise gives on average tells no difference."""
_MOST_SUMMED = float(2**61)


class NoisedSum(msgspec.Struct, frozen=True):
    """Noised windows of one version, added up.

    Attributes:
        windows: How many.
        epsilon: The largest, which is that of the least private.
        variance: Of the noise on each number.
        predictions: Answers given; this and the next may be negative.
        errors: Requests that failed.
        labelled: Answers that were labelled.
        correct: Those of them that were right.
        numbers: The columns of the version's layout, as 64-bit integers, little-endian.
    """

    windows: int
    epsilon: float
    variance: float
    predictions: int
    errors: int
    labelled: int
    correct: int
    numbers: bytes

    def plus(self, other: NoisedSum) -> NoisedSum:
        """Return both together.

        Raises:
            InvalidMessage: They are of different layouts, or too much in all.
        """
        if len(self.numbers) != len(other.numbers):
            raise InvalidMessage("Noised sums of different versions cannot be added.")
        left, right = self.columns(), other.columns()
        if self._largest() + other._largest() > _MOST_SUMMED:
            raise InvalidMessage("A noised sum is too large to be added to.")
        return NoisedSum(
            self.windows + other.windows,
            max(self.epsilon, other.epsilon),
            self.variance + other.variance,
            self.predictions + other.predictions,
            self.errors + other.errors,
            self.labelled + other.labelled,
            self.correct + other.correct,
            (left + right).astype("<i8").tobytes(),
        )

    def _largest(self) -> float:
        scalars = (self.predictions, self.errors, self.labelled, self.correct)
        return float(max(int(np.abs(self.columns()).max(initial=0)), *map(abs, scalars)))

    def columns(self) -> NDArray[np.int64]:
        """Return the numbers, shape (C,)."""
        return np.frombuffer(self.numbers, dtype="<i8").astype(np.int64)


class RoughDrift(NamedTuple):
    """One feature of a noised sum beside the reference.

    Attributes:
        feature: Its name.
        values: How many values there are, about; at least 0.
        distance: The Kolmogorov-Smirnov distance, 0 to 1; None where noise is all that there is.
        noise: What noise and chance alone would give on average; None likewise.
    """

    feature: str
    values: int
    distance: float | None
    noise: float | None

    @property
    def sentence(self) -> str:
        """The comparison, for people."""
        if self.distance is None or self.noise is None:
            return f"{self.feature}: there is nothing but noise"
        limit = f"over {CLEAR:g} times the {self.noise:.3f} that noise and chance alone give on average"
        told = f"not {limit}: no difference can be told"
        if self.distance > CLEAR * self.noise:
            told = f"{limit}: it differs from the reference"
        return f"{self.feature}: distance {self.distance:.3f}, {told}"


def summed(
    windows: Sequence[NoisedWindow], layout: Layout
) -> tuple[list[NoisedSum | None], list[str | None]]:
    """Return each window as a sum of one, and why it is none.

    Args:
        windows: Of one version.
        layout: Of that version.
    """
    decoded = decode_profiles([window.counts for window in windows], layout)
    numbers = unzigzag(decoded.matrix.numbers)
    sums: list[NoisedSum | None] = []
    reasons: list[str | None] = []
    for row, window in enumerate(windows):
        reason = _objection(window, decoded.refused.get(row), decoded.matrix.present[row], numbers[row])
        reasons.append(reason)
        sums.append(_alone(window, numbers[row]) if reason is None else None)
    return sums, reasons


def _objection(
    window: NoisedWindow,
    refused: InvalidMessage | None,
    present: NDArray[np.bool_],
    numbers: NDArray[np.int64],
) -> str | None:
    """Return why a window is not added up, by what was decoded of it; None if it is."""
    if refused is not None:
        return str(refused)
    if not present.all():
        return "A noised window lacks a feature of its version."
    return beyond_noise(window, int(np.abs(numbers).max(initial=0)))


def rough_drift(total: NoisedSum, reference: ReferenceProfile) -> list[RoughDrift]:
    """Return each feature of a sum beside the reference.

    Raises:
        InvalidMessage: The sum is of another version.
    """
    columns, layout = total.columns(), Layout.of(reference)
    if len(columns) != layout.columns:
        raise InvalidMessage("The noised sum is of another version.")
    return [
        _rough(feature, columns[start + 1 : end], total.variance)
        for feature, start, end in zip(reference.features, layout.starts[:-1], layout.starts[1:], strict=True)
    ]


def _rough(feature: FeatureReference, cells: NDArray[np.int64], variance: float) -> RoughDrift:
    values, of = int(cells.sum()), sum(feature.cells)
    if values <= CLEAR * math.sqrt(len(cells) * variance) or not of:
        return RoughDrift(feature.name, max(0, values), None, None)
    expected = np.array(feature.cells, dtype=np.float64) / of
    distance = float(np.abs(np.cumsum(cells / values - expected)).max())
    noise = MEAN_SUPREMUM * math.sqrt(len(cells) * variance / values**2 + 1.0 / values)
    return RoughDrift(feature.name, values, min(1.0, distance), min(1.0, noise))


def _alone(window: NoisedWindow, numbers: NDArray[np.int64]) -> NoisedSum:
    return NoisedSum(
        1,
        window.epsilon,
        window.variance,
        window.predictions,
        window.errors,
        window.labelled,
        window.correct,
        numbers.astype("<i8").tobytes(),
    )
