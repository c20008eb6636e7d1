"""Noised windows: what a device tells of its counts in place of them.

====================  ==========================  ========================================================
what                  becomes                     a row changes it by
====================  ==========================  ========================================================
predictions, errors   noised                      1 in all: a row is answered, or its request fails
cells of a feature    noised, with those that     1: a row is in one cell, or missing
                      nothing fell into
labelled, correct     noised                      2 in all: a row is labelled once
offsets, minimum,     left out
maximum, latency,
labels by confidence
====================  ==========================  ========================================================

So a row changes what leaves the device by Δ = F + 3 for F features, see `sensitivity`. Every row is in one
window only, and its label in this one or a later one; so all windows together, of all times, are as private
as one (parallel composition). Whoever is in k rows is protected by k·ε. That there is a window, and when,
tells nothing: there is one for each version that answers and each interval, also if nothing happened.

Noise makes numbers negative. They travel so, as cutting them off would be a bias: sums over many windows are
right on average. Adding windows up costs no privacy, for it looks at nothing but what is noised.

Numbers travel as `fleet.drift.encoding` has it, in "zigzag": s as 2s, or -2s - 1 where it is negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.encoding import decode_profile, encode_profile
from fleet.drift.profile import FeatureCounts, Profile, ReferenceProfile
from fleet.privacy.noise import Draw, geometric_noise, variance
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.noised import MAX_NUMBER, MAX_VARIANCE, NoisedWindow
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import MAX_REQUESTS_PER_S

OUTSIDE_FEATURES = 3
"""By how much a row changes what is no cell of a feature."""
_DEVIATIONS = 64.0
"""So many standard deviations noise never is."""

_SCALARS = ("predictions", "errors", "labelled", "correct")


def sensitivity(features: int) -> int:
    """Return by how much one row changes a window of so many features, as the sum of all changes."""
    return features + OUTSIDE_FEATURES


def whole(profile: Profile, reference: ReferenceProfile) -> Profile:
    """Return counts with every feature of a version, also those that nothing was counted of."""
    return {each.name: profile.get(each.name) or FeatureCounts.empty(each) for each in reference.features}


def noised(window: TelemetryWindow, epsilon: float, draw: Draw) -> NoisedWindow:
    """Return what may be told of a window.

    Args:
        window: Its profile is `whole`.
        epsilon: How private it has to be.
        draw: Where chance comes from.
    """
    scale = sensitivity(len(window.profile)) / epsilon
    exact = [np.array([getattr(window, name) for name in _SCALARS], dtype=np.int64)]
    exact += [np.array([each.missing, *each.cells], dtype=np.int64) for each in window.profile.values()]
    numbers = np.concatenate(exact)
    numbers = np.clip(numbers + geometric_noise(len(numbers), scale, draw), -MAX_NUMBER, MAX_NUMBER)
    scalars, *features = np.split(numbers, np.cumsum([len(part) for part in exact])[:-1])
    return NoisedWindow(
        started_at_s=window.started_at_s,
        ended_at_s=window.ended_at_s,
        model=window.model,
        version=window.version,
        manifest_sha256=window.manifest_sha256,
        variant=window.variant,
        epsilon=epsilon,
        variance=variance(scale),
        counts=_sealed(dict(zip(window.profile, features, strict=True))),
        **dict(zip(_SCALARS, scalars.tolist(), strict=True)),
    )


def numbers_of(window: NoisedWindow) -> dict[str, NDArray[np.int64]]:
    """Return the missing values of each feature and then its cells, by its name.

    Raises:
        InvalidMessage: They cannot be read.
    """
    return {
        name: unzigzag(np.array([counts.missing, *counts.cells], dtype=np.int64))
        for name, counts in decode_profile(window.counts).items()
    }


def merge_noised(left: NoisedWindow, right: NoisedWindow) -> NoisedWindow:
    """Return the window that covers both, which is as private as the less private of them.

    Raises:
        InvalidMessage: They are of different bundles, or their sum is too large to be sent.
    """
    ours, theirs = numbers_of(left), numbers_of(right)
    if left.manifest_sha256 != right.manifest_sha256 or [*map(len, ours.values())] != [
        *map(len, theirs.values())
    ]:
        raise InvalidMessage("Noised windows of different bundles cannot be added.")
    scalars = {name: getattr(left, name) + getattr(right, name) for name in _SCALARS}
    sums = {name: ours[name] + theirs[name] for name in ours if name in theirs}
    largest = max(int(abs(numbers).max(initial=0)) for numbers in sums.values()) if sums else 0
    added = left.variance + right.variance
    if max(largest, *map(abs, scalars.values())) > MAX_NUMBER or added > MAX_VARIANCE:
        raise InvalidMessage("Noised windows of so many requests cannot be added.")
    return msgspec.structs.replace(
        right,
        started_at_s=min(left.started_at_s, right.started_at_s),
        ended_at_s=max(left.ended_at_s, right.ended_at_s),
        epsilon=max(left.epsilon, right.epsilon),
        variance=added,
        counts=_sealed(sums),
        **scalars,
    )


def noised_contradiction(window: NoisedWindow) -> str | None:
    """Return why a noised window cannot be true; None if it can."""
    duration_s = window.ended_at_s - window.started_at_s
    if duration_s < 0:
        return "it ends before it starts"
    return beyond_noise(window, max(abs(getattr(window, name)) for name in _SCALARS))


def beyond_noise(window: NoisedWindow, largest: int) -> str | None:
    """Return why a window cannot have so large a number, noise included; None if it can."""
    duration_s = window.ended_at_s - window.started_at_s
    possible = MAX_REQUESTS_PER_S * (1.0 + duration_s) + _DEVIATIONS * (1.0 + math.sqrt(window.variance))
    if largest > possible:
        return f"{largest} requests in {duration_s:.1f} s, with noise of ±{math.sqrt(window.variance):.0f}"
    return None


def unzigzag(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return signed numbers from those that were sent."""
    signed: NDArray[np.int64] = (values >> 1) ^ -(values & 1)
    return signed


def _sealed(numbers: Mapping[str, NDArray[np.int64]]) -> bytes:
    zigzag = {name: np.where(each < 0, -2 * each - 1, 2 * each).tolist() for name, each in numbers.items()}
    return encode_profile({name: FeatureCounts(each[1:], each[0]) for name, each in zigzag.items()})
