"""What can be said against a manifest without running anything, beyond what decoding checks."""

from __future__ import annotations

from itertools import pairwise

from fleet.drift.features import FEATURES_OF_TASK, OUTPUT_CLASS, OUTPUT_CLUSTER
from fleet.drift.profile import FeatureReference
from fleet.protocol.errors import InvalidManifest
from fleet.protocol.manifest import Manifest, Provenance, Signature

NUMBERS = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
"""Element types of numbers."""

MAX_SEED = 2**32 - 1
_CATEGORICAL = frozenset({OUTPUT_CLASS, OUTPUT_CLUSTER})


def check_signature(signature: Signature) -> None:
    """Check that tensors can be told apart, and that inputs are of known types and sizes.

    Raises:
        InvalidManifest: They are not.
    """
    for side in (signature.inputs, signature.outputs):
        if len({tensor.name for tensor in side}) != len(side):
            raise InvalidManifest("The signature has two tensors of one name on one side.")
    for tensor in signature.inputs:
        if tensor.dtype not in NUMBERS and tensor.dtype != "str":
            raise InvalidManifest(f"Input {tensor.name!r:.80} has the unknown type {tensor.dtype!r:.40}.")
        if not tensor.shape or any(size != -1 and size < 1 for size in tensor.shape):
            raise InvalidManifest(
                f"Input {tensor.name!r:.80} has the shape {tensor.shape}; sizes from 1, or -1, are needed."
            )


def check_reference(manifest: Manifest) -> None:
    """Check that devices can count into the reference profile.

    Raises:
        InvalidManifest: They cannot.
    """
    features, task = manifest.reference.features, manifest.signature.task
    names = [feature.name for feature in features]
    unknown = set(names) - set(FEATURES_OF_TASK[task])
    if unknown or len(set(names)) != len(names):
        raise InvalidManifest(
            f"The reference profile has {', '.join(names):.200}; of a {task} model it may have"
            f" {', '.join(FEATURES_OF_TASK[task])}, each once."
        )
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
    for text in texts:
        if not text.isprintable():
            raise InvalidManifest(f"The provenance has the text {text!a:.80}, which cannot be shown.")


def _is_sound(feature: FeatureReference) -> bool:
    """Whether cells and edges fit each other, see `fleet.drift.profile`."""
    cells, edges = feature.cells, feature.edges
    if feature.missing < 0 or any(count < 0 for count in cells) or sum(cells) == 0:
        return False
    if feature.name in _CATEGORICAL or edges is None:
        return feature.name in _CATEGORICAL and edges is None and len(cells) > 1
    ascending = all(left < right for left, right in pairwise(edges))
    return len(edges) > 1 and ascending and len(cells) == len(edges) + 1
