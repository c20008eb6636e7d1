"""Prediction-powered inference: the accuracy from few labels and many answers without.

The chance of being right that calibration gives each answer (`fleet.quality.calibration`) is a prediction of
whether it is. With Y for labelled answers (1 if right), f their predictions, and F those of the N answers
without labels,

    accuracy = mean Y + λ (mean F - mean f)

is right on average whatever the predictions are worth, and varies less than mean Y by what they are worth
(Angelopoulos, Bates, Fannjiang, Jordan and Zrnic 2023, "Prediction-powered inference"). The weight that
makes it vary least is, of PPI++ (Angelopoulos, Duchi and Zrnic 2023, proposition 2),

    λ = Cov(Y, f) / ((1 + n / N) Var(f))

With few labels the covariance is hardly known. It is mixed with what it would be if the predictions were
right, Var(f), which is given the weight of `PRIOR_LABELS` labels: λ may be any number that does not come
from the labels, so this cannot do harm. The interval is Wilson's with as many labels as would know the mean
as well without predictions; it is for one look, not for looking until something is seen.

What it rests on: that answers are labelled at random. If only strange ones are, the labels say how the model
does on those; `fleet.quality.doubts` compares the confidences of labelled answers with those of all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fleet.quality.calibration import Calibration, Floats
from fleet.quality.interval import Estimate, estimated

LEAST_LABELS = 10
"""Fewer say too little to be turned into an interval."""
PRIOR_LABELS = 20.0
_LEAST_LEFT = 0.1
"""Share of the variance that stays at least: that predictions take all of it is not known from few labels."""


class Powered(NamedTuple):
    """What labels and predictions together say.

    Attributes:
        estimate: The accuracy.
        weight: λ: 0 where the predictions are worth nothing.
        worth: How many labels would say as much without predictions.
    """

    estimate: Estimate
    weight: float
    worth: float


def prediction_powered(
    calibration: Calibration, answers: Floats, labelled: Floats, correct: Floats
) -> Powered | None:
    """Return the accuracy of answers of which some are labelled; None with fewer than `LEAST_LABELS`.

    Args:
        calibration: Of the version that gave them.
        answers: How many fell into each bin of the confidence, labelled or not, shape (B,).
        labelled: How many of each bin were labelled, shape (B,).
        correct: How many of those were right, shape (B,).
    """
    n = float(labelled.sum())
    if n < LEAST_LABELS:
        return None
    others = np.maximum(0.0, answers - labelled)
    predicted, more = calibration.chance, float(others.sum())
    mean, of_labelled = float(correct.sum()) / n, float(labelled @ predicted) / n
    both = (labelled + others) / (n + more)
    spread = float(both @ np.square(predicted)) - float(both @ predicted) ** 2
    together = float(correct @ predicted) / n - mean * of_labelled
    covariance = (n * together + PRIOR_LABELS * spread) / (n + PRIOR_LABELS)
    weight = min(1.0, max(0.0, covariance / ((1.0 + n / more) * spread))) if more and spread > 1e-12 else 0.0
    of_others = float(others @ predicted) / more if more else of_labelled
    value = min(1.0, max(0.0, mean + weight * (of_others - of_labelled)))

    one = (float(correct.sum()) + 0.5) / (n + 1.0)  # Jeffreys' mean: labels that are all right vary too
    varies = one * (1.0 - one)
    of_f = float(labelled @ np.square(predicted)) / n - of_labelled**2
    saved = 2.0 * weight * together - weight**2 * of_f
    residual = max(varies - saved, _LEAST_LEFT * varies) * n / max(1.0, n - 1.0)
    variance = residual / n + (weight**2 * spread / more if more else 0.0)
    variance = min(variance, varies / n) if weight == 0.0 else variance
    return Powered(estimated(value, one, variance), weight, varies / variance)
