"""The accuracy gate: which variants may be packed, and the report that says why.

The fp32 model is the yardstick. If it is below the demanded accuracy there is nothing to release. A
quantized variant is packed if it reaches the demanded accuracy too and loses no more against fp32 than is
allowed, on the same held-out samples. A gate that is not a number lets nothing pass.
"""

from __future__ import annotations

import msgspec

from fleet.protocol.errors import AccuracyTooLow
from fleet.protocol.manifest import Evaluation


class AccuracyGate(msgspec.Struct, frozen=True):
    """What is demanded.

    Attributes:
        minimum_accuracy: Least share of right answers, 0 to 1, of every variant.
        maximum_drop: Greatest loss of accuracy against fp32, 0 to 1, of a quantized variant.
    """

    minimum_accuracy: float
    maximum_drop: float

    def check_fp32(self, fp32: Evaluation) -> None:
        """Let the fp32 model pass.

        Raises:
            AccuracyTooLow: It does not reach the demanded accuracy.
        """
        if not fp32.accuracy >= self.minimum_accuracy:
            raise AccuracyTooLow(
                f"The model is right in {fp32.accuracy:.2%} of {fp32.samples} held-out samples;"
                f" {self.minimum_accuracy:.2%} are demanded.",
                remedy="Train with more samples or another estimator, or demand less.",
            )

    def check_quantized(self, quantized: Evaluation, fp32: Evaluation) -> None:
        """Let a quantized variant pass.

        Raises:
            AccuracyTooLow: It loses too much, or does not reach the demanded accuracy.
        """
        drop = fp32.accuracy - quantized.accuracy
        if not drop <= self.maximum_drop:
            raise AccuracyTooLow(
                f"Accuracy falls by {drop:.2%} against fp32; {self.maximum_drop:.2%} are allowed."
            )
        if not quantized.accuracy >= self.minimum_accuracy:
            raise AccuracyTooLow(
                f"Accuracy is {quantized.accuracy:.2%}; {self.minimum_accuracy:.2%} are demanded."
            )


class VariantReport(msgspec.Struct, frozen=True):
    """What became of one variant.

    Attributes:
        name: Name of the variant.
        packed: Whether it is in the bundle.
        reason: Why it is not; empty if it is.
        size_bytes: Size of its model; None if it could not be made.
        evaluation: How it did; None likewise.
        golden_tolerance: Tolerance of its self-test; None if it is not in the bundle.
    """

    name: str
    packed: bool
    reason: str = ""
    size_bytes: int | None = None
    evaluation: Evaluation | None = None
    golden_tolerance: float | None = None
