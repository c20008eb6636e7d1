"""Which samples of a request are captured, and why: a pure function of the policy, the answer and chance.

A feature speaks for drift where the reference sample had nothing: a number beyond the outermost edges, a
category that no sample had, a missing value where none was missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.drift.features import OUTPUT_CONFIDENCE, extract
from fleet.drift.profile import FeatureReference, ReferenceProfile
from fleet.protocol.capture import MILLION, CapturePolicy
from fleet.protocol.samples import Reason


class Picked(NamedTuple):
    """A sample that is captured.

    Attributes:
        row: Its number in the request, from 0.
        reason: Why.
        feature: Which feature told, of a drifted one; else empty.
    """

    row: int
    reason: Reason
    feature: str = ""


def pick(
    policy: CapturePolicy,
    reference: ReferenceProfile,
    inputs: NDArray[Any],
    outputs: NDArray[Any],
    draws: NDArray[np.float64],
    *,
    examine: bool = True,
) -> list[Picked]:
    """Return the samples of a request that the policy captures, in their order.

    Args:
        policy: What is captured.
        reference: Of the version that answered.
        inputs: Its numbers, shape (N, …).
        outputs: Its first output, shape (N, …).
        draws: A number for each sample, uniform in [0, 1).
        examine: Whether samples are compared with the reference, which takes longer than small models do.
    """
    count = len(outputs)
    unsure, by_chance = np.zeros(count, bool), np.zeros(count, bool)
    if policy.uncertain_below:
        unsure = confidences(reference, outputs) * MILLION < policy.uncertain_below
    if policy.random_share:
        by_chance = draws * MILLION < policy.random_share
    beside = _beside(reference, inputs, outputs) if policy.drifted and examine else [""] * count
    return list(_picked(unsure, beside, by_chance))


def confidences(reference: ReferenceProfile, outputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return the confidence of each answer, shape (N,); 1 where answers are no probabilities."""
    if not any(feature.name == OUTPUT_CONFIDENCE for feature in reference.features):
        return np.ones(len(outputs))
    return np.asarray(outputs.reshape(len(outputs), -1).max(axis=1), dtype=np.float64)


def _picked(unsure: NDArray[np.bool_], beside: list[str], by_chance: NDArray[np.bool_]) -> Iterator[Picked]:
    for row, feature in enumerate(beside):
        if unsure[row]:
            yield Picked(row, Reason.UNCERTAIN)
        elif feature:
            yield Picked(row, Reason.DRIFTED, feature)
        elif by_chance[row]:
            yield Picked(row, Reason.RANDOM)


def _beside(reference: ReferenceProfile, inputs: NDArray[Any], outputs: NDArray[Any]) -> list[str]:
    """Return for each sample the first feature that speaks for drift; empty where none does."""
    axes = next((feature.axes for feature in reference.features if feature.axes), ())
    values = extract((feature.name for feature in reference.features), inputs, outputs, axes)
    told = [""] * len(outputs)
    for feature in reference.features:
        if feature.name in values:
            for row in np.flatnonzero(_is_beside(feature, values[feature.name])):
                told[row] = told[row] or feature.name
    return told


def _is_beside(feature: FeatureReference, values: NDArray[np.generic]) -> NDArray[np.bool_]:
    cells = np.asarray(feature.cells)
    if feature.edges is None:
        numbers = np.clip(values.astype(np.int64), -1, len(cells) - 1)
        return np.asarray(cells[numbers] == 0)  # -1 is the last cell, of what is in no category
    numeric = values.astype(np.float64)
    beyond = (numeric < feature.edges[0]) | (numeric > feature.edges[-1])
    return np.asarray(np.isnan(numeric) if feature.missing == 0 else False) | beyond
