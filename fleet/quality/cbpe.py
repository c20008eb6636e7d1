"""Confidence-based performance estimation: the accuracy of answers without any label.

If an answer of confidence c is right with the chance a(c), the accuracy of many answers is the mean of their
chances:

    accuracy = sum over bins of  share of the answers in the bin × chance of the bin

(NannyML's CBPE: Kivimäki, Białek, Nurminen and Kuberski 2024, "Confidence-based estimators for predictive
performance in model monitoring".) Bins of 1/20 are as good as the confidences themselves, because the map is
known no finer than that from hundreds of held-out samples; ``make bench-quality`` compares.

The interval is for the share of these very answers that are right. It has two parts: each answer is right or
wrong by chance, and the chances are known from a held-out sample only (`fleet.quality.calibration`).

What it rests on: that confidence means what it meant on the held-out samples. Inputs that became harder, so
that the model is less sure of them, are seen. A model that is surer than it should be of inputs unlike any
before, and classes whose meaning changed (concept drift), cannot be: only labels show those.
"""

from __future__ import annotations

import numpy as np

from fleet.quality.calibration import Calibration, Floats
from fleet.quality.interval import Estimate, estimated


def cbpe(calibration: Calibration, answers: Floats) -> Estimate:
    """Return the estimated accuracy of answers.

    Args:
        calibration: Of the version that gave them.
        answers: How many fell into each bin of the confidence, shape (B,); at least one in all.
    """
    total = float(answers.sum())
    share, chance = answers / total, calibration.chance
    value = float(share @ chance)
    by_chance = float(share @ (chance * (1.0 - chance))) / total
    unknown = float(np.square(share) @ calibration.variance)
    return estimated(value, value, unknown + by_chance)
