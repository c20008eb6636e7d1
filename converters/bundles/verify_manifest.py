"""What can be said against a manifest without running anything, beyond what decoding checks."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import inf
from typing import get_args

from converters.source import Precision
from fleet.drift.features import FEATURES_OF_TASK, OUTPUT_CLASS, OUTPUT_CLUSTER, is_known
from fleet.drift.inputs import LAYOUTS
from fleet.drift.profile import FeatureCounts, FeatureReference, check_counts
from fleet.protocol.errors import InvalidManifest, InvalidMessage
from fleet.protocol.manifest import Manifest, Provenance, Signature, Variant

NUMBERS = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
"""Element types of numbers."""

MAX_SEED = 2**32 - 1
MAX_AXIS = 3
_CATEGORICAL = frozenset({OUTPUT_CLASS, OUTPUT_CLUSTER})


def check_signature(signature: Signature) -> None:
    """Check that tensors can be told apart and shown, and that inputs are of known types and sizes.

    Raises:
        InvalidManifest: They are not.
    """
    for side in (signature.inputs, signature.computed):
        if len({tensor.name for tensor in side}) != len(side):
            raise InvalidManifest("The signature has two tensors of one name on one side.")
        _check_shown("signature", (text for tensor in side for text in (tensor.name, *tensor.columns)))
    _check_shown("signature", signature.classes)
    for tensor in signature.inputs:
        if tensor.dtype not in NUMBERS and tensor.dtype != "str":
            raise InvalidManifest(f"Input {tensor.name!r:.80} has the unknown type {tensor.dtype!r:.40}.")
        if not tensor.shape or any(size != -1 and size < 1 for size in tensor.shape):
            raise InvalidManifest(
                f"Input {tensor.name!r:.80} has the shape {tensor.shape}; sizes from 1, or -1, are needed."
            )
        if tensor.layout and not (tensor.layout in LAYOUTS and len(tensor.layout) == len(tensor.shape)):
            raise InvalidManifest(
                f"Input {tensor.name!r:.80} of the shape {tensor.shape} is said to be {tensor.layout!a:.40};"
                f" known are {', '.join(LAYOUTS)}, a letter for each size."
            )


def check_reference(manifest: Manifest) -> None:
    """Check that devices can count into the reference profile.

    Raises:
        InvalidManifest: They cannot.
    """
    features, task = manifest.reference.features, manifest.signature.task
    names = [feature.name for feature in features]
    if not all(is_known(name, task) for name in names) or len(set(names)) != len(names):
        raise InvalidManifest(
            f"The reference profile has {', '.join(names):.200}; of a {task} model it may have"
            f" {', '.join(FEATURES_OF_TASK[task])}, and what is known of inputs and embeddings, each once."
        )
    _check_shown("reference profile", names)
    for feature in features:
        if not _is_sound(feature):
            raise InvalidManifest(f"The reference profile of {feature.name} contradicts itself.")


def check_provenance(provenance: Provenance) -> None:
    """Check that a provenance can be stored and shown.

    Raises:
        InvalidManifest: It cannot.
    """
    if not 0 <= provenance.seed <= MAX_SEED:
        raise InvalidManifest(f"The seed of the provenance is outside 0 to {MAX_SEED}.")
    texts = [provenance.dataset, provenance.estimator, *provenance.hyperparameters, *provenance.libraries]
    texts += [value for value in provenance.hyperparameters.values() if isinstance(value, str)]
    texts += provenance.libraries.values()
    _check_shown("provenance", texts)


def check_variant(variant: Variant) -> None:
    """Check what is said of a variant that no run can confirm.

    Raises:
        InvalidManifest: It cannot be.
    """
    if variant.precision not in get_args(Precision):
        raise InvalidManifest(
            f"Variant {variant.name} has the precision {variant.precision!a:.40}; known are"
            f" {', '.join(get_args(Precision))}."
        )
    if variant.evaluation.value > 1.0 or variant.evaluation.samples < 1:
        raise InvalidManifest(
            f"Variant {variant.name} is said to have reached {variant.evaluation.value:g} on"
            f" {variant.evaluation.samples} samples; 1 is the best, and it takes a sample."
        )


def _check_shown(where: str, texts: Iterable[str]) -> None:
    for text in texts:
        if not text.isprintable():
            raise InvalidManifest(f"The {where} has the text {text!a:.80}, which cannot be shown.")


def _is_sound(feature: FeatureReference) -> bool:
    """Whether cells and edges fit each other, see `fleet.drift.profile`."""
    cells, edges = feature.cells, feature.edges
    if len(feature.axes) > 2 or any(not 1 <= axis <= MAX_AXIS for axis in feature.axes):
        return False
    if len(set(feature.axes)) != len(feature.axes):
        return False
    if feature.missing < 0 or any(count < 0 for count in (*cells, *feature.offsets)) or sum(cells) == 0:
        return False
    if feature.correct and (
        len(feature.correct) != len(cells)
        or any(not 0 <= right <= of for right, of in zip(feature.correct, cells, strict=True))
    ):
        return False
    if any(value is not None and not 0.0 <= value < inf for value in (feature.deviation, feature.allowance)):
        return False
    try:
        check_counts(FeatureCounts(list(cells), feature.missing, offsets=list(feature.offsets)))
    except InvalidMessage:
        return False
    if feature.name in _CATEGORICAL or edges is None:
        return feature.name in _CATEGORICAL and edges is None and len(cells) > 1
    ascending = all(left < right for left, right in pairwise(edges))
    return len(edges) > 1 and ascending and len(cells) == len(edges) + 1
