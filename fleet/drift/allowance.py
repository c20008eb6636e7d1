"""The allowance: how far a reference sample may be from the truth, measured when the model is built.

The reference is a sample of n values. For each split (`fleet.drift.splits`) the angle of the sample
differs from that of the truth by about 1 / (2 sqrt(n)); of many splits at once the largest difference is
larger, by how much depends on how the feature's splits hang together. It is found by Efron's bootstrap
(1979): samples of n are drawn from the reference's own cells, again and again, and the allowance is the
quantile of

    max over splits of  2 sqrt(n) | angle of the sample - angle of the reference |

that is exceeded with probability `REFERENCE_RATE` shared over the features. One number for each feature is
shipped in the manifest. It is at least `LEAST`, for a split that no value of the reference is on one side
of does not vary in the bootstrap.
"""

from __future__ import annotations

import msgspec
import numpy as np

from fleet.drift.profile import FeatureReference, ReferenceProfile
from fleet.drift.splits import REFERENCE_RATE, splits, splits_of

DRAWS = 5_000
LEAST = 3.0
_MAX_NUMBERS = 4_000_000  # drawn for one feature: with very many categories there are fewer draws
_AT_ONCE = 1000


def calibrated(profile: ReferenceProfile, seed: int = 0) -> ReferenceProfile:
    """Return the profile with the allowance of each feature.

    Args:
        profile: Of a new version.
        seed: Fixes the draws.
    """
    features = profile.features
    return ReferenceProfile(
        tuple(
            msgspec.structs.replace(feature, allowance=_allowance(feature, len(features), seed))
            for feature in features
        )
    )


def _allowance(feature: FeatureReference, features: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    every = np.array([*feature.cells, feature.missing])
    total, numeric = int(every.sum()), feature.edges is not None
    draws = max(_AT_ONCE, min(DRAWS, _MAX_NUMBERS // len(every)))
    reference = splits(feature, numeric=numeric)
    error = 1.0 / (2.0 * np.sqrt(np.maximum(1.0, reference.of)))
    largest = []
    for _ in range(0, draws, _AT_ONCE):
        drawn = rng.multinomial(total, every / total, size=_AT_ONCE)
        angles = splits_of(drawn[:, :-1], drawn[:, -1], numeric=numeric).angles
        largest.append((np.abs(angles - reference.angles) / error).max(axis=1))
    quantile = float(np.quantile(np.concatenate(largest), 1.0 - REFERENCE_RATE / features))
    return round(max(LEAST, quantile), 3)
