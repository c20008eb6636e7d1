"""The gate: which variants are sound enough to be packed.

A float variant must give the source's own numbers, within a tolerance (parity); a quantized one must do the
job as well, within a drop of the metric. Both are taken on the same held-out samples. What is not a number
lets nothing pass.

Parity is the greatest difference to the source over all samples and elements, in proportion to the scales of
`fleet.protocol.difference`. A tree is a step function: a feature that float32
rounds to the other side of a threshold changes the answer by a step, in the exact arithmetic of either side.
So of a model with trees `DISCONTINUOUS_SHARE` of the samples may differ by more; the metric judges those.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.protocol.difference import scaled_differences
from fleet.protocol.errors import AccuracyTooLow, ConversionFailed
from fleet.protocol.manifest import Evaluation

DISCONTINUOUS_SHARE = 0.01


class Gate(msgspec.Struct, frozen=True):
    """What is demanded.

    Attributes:
        maximum_drop: Greatest loss of the metric against the source, of every variant.
        minimum: Least value of the metric, of the source and of every variant; None demands none.
    """

    maximum_drop: float = 0.01
    minimum: float | None = None

    def check_source(self, source: Evaluation) -> None:
        """Let the source pass: if it is not good enough, there is nothing to convert.

        Raises:
            AccuracyTooLow: It does not reach what is demanded.
        """
        if self.minimum is not None and not source.value >= self.minimum:
            raise AccuracyTooLow(
                f"The model's {source.metric} is {source.value:.4f} on {source.samples} held-out samples;"
                f" {self.minimum:.4f} is demanded.",
                remedy="Train with more samples or another estimator, or demand less.",
            )

    def check_metric(self, variant: Evaluation, source: Evaluation) -> None:
        """Let a variant pass.

        Raises:
            AccuracyTooLow: It loses too much, or does not reach what is demanded.
        """
        drop = source.value - variant.value
        if not drop <= self.maximum_drop:
            raise AccuracyTooLow(
                f"The {variant.metric} falls by {drop:.4f} to {variant.value:.4f};"
                f" a drop of {self.maximum_drop:.4f} is allowed."
            )
        if self.minimum is not None and not variant.value >= self.minimum:
            raise AccuracyTooLow(
                f"The {variant.metric} is {variant.value:.4f}; {self.minimum:.4f} is demanded."
            )


def check_parity(parity: float, tolerance: float) -> None:
    """Let a float variant pass.

    Args:
        parity: See `parity`.
        tolerance: Greatest that passes.

    Raises:
        ConversionFailed: Its numbers are not the source's.
    """
    if not parity <= tolerance:
        raise ConversionFailed(f"Answers differ from the source's by {parity:.3g}; {tolerance:g} is allowed.")


def parity(answers: NDArray[Any], source_answers: NDArray[Any], *, discontinuous: bool = False) -> float:
    """Return how far answers are from the source's, see the head of this file.

    Args:
        answers: Shape (N, …).
        source_answers: Of the same shape.
        discontinuous: Leave out the `DISCONTINUOUS_SHARE` of the samples that differ most.

    Raises:
        ConversionFailed: The shapes differ.
    """
    if answers.shape != source_answers.shape:
        raise ConversionFailed(
            f"The variant answers with shape {answers.shape}, the source with {source_answers.shape}."
        )
    differences = scaled_differences(answers, source_answers)
    if discontinuous:
        differences = np.sort(differences)[: len(differences) - int(DISCONTINUOUS_SHARE * len(differences))]
    return float(differences.max())
