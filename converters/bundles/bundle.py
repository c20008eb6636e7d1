"""Assemble a bundle: from the variants that passed to the blobs and the manifest that describes them.

The same inputs give the same bytes, on one machine with one set of library versions; the manifest names
them. Nothing that was timed goes into it. Variants are listed smallest model first: that is what travels, and
the hub cannot measure a device's speed. The reference profile is made from the answers of the first variant,
which most devices will run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.judging.variant import Candidate, Yardstick
from fleet.drift.features import build_reference
from fleet.drift.profile import ReferenceProfile
from fleet.protocol.manifest import (
    MANIFEST_FORMAT,
    File,
    Manifest,
    Provenance,
    Signature,
    Variant,
    decode_manifest,
    encode_manifest,
    manifest_sha256,
)
from fleet.protocol.text import encode_text
from fleet.quality.calibration import with_correct

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """Everything that a version needs on devices.

    Attributes:
        manifest: The description.
        manifest_bytes: Its encoding, the TUF target.
        blobs: The files, by SHA-256 in hexadecimal.
    """

    manifest: Manifest
    manifest_bytes: bytes
    blobs: dict[str, bytes]

    @property
    def sha256(self) -> str:
        """The digest that identifies the bundle."""
        return manifest_sha256(self.manifest_bytes)


@dataclass(frozen=True)
class Identity:
    """What a bundle is called and where it comes from.

    Attributes:
        model: Name of the model.
        version: Number of the version.
        provenance: Where it comes from.
    """

    model: str
    version: int
    provenance: Provenance


@dataclass
class _Blobs:
    """Files under way into a bundle."""

    by_sha256: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, data: bytes) -> File:
        sha256 = hashlib.sha256(data).hexdigest()
        self.by_sha256[sha256] = data
        return File(name=name, sha256=sha256, size_bytes=len(data))


def assemble(
    identity: Identity, candidates: Sequence[Candidate], yardstick: Yardstick, golden: Inputs
) -> Bundle:
    """Return the bundle of the variants that passed.

    Args:
        identity: What it is called.
        candidates: At least one, all sound, with their expected outputs.
        yardstick: The held-out samples, for the reference profile.
        golden: The golden inputs.

    Raises:
        InvalidManifest: The name or version cannot be used.
    """
    blobs = _Blobs()
    ordered = sorted(candidates, key=lambda candidate: len(candidate.model or b""))
    signature = yardstick.signature
    manifest = Manifest(
        format=MANIFEST_FORMAT,
        model=identity.model,
        version=identity.version,
        signature=signature,
        golden_inputs=tuple(
            blobs.add(f"golden-input-{number}.bin", _raw(golden[tensor.name]))
            for number, tensor in enumerate(signature.inputs)
        ),
        golden_count=len(next(iter(golden.values()))),
        variants=tuple(_variant(candidate, blobs) for candidate in ordered),
        reference=_reference(yardstick, _known(ordered[0].answers), ordered[0].embedding),
        provenance=identity.provenance,
    )
    data = encode_manifest(manifest)
    return Bundle(decode_manifest(data), data, blobs.by_sha256)  # decoding checks what devices will check


def renamed(bundle: Bundle, model: str, version: int) -> Bundle:
    """Return the bundle as a version of a model: its files are the same.

    Args:
        bundle: What was built.
        model: Name of the model.
        version: Number of the version.

    Raises:
        InvalidManifest: The name or version cannot be used.
    """
    data = encode_manifest(msgspec.structs.replace(bundle.manifest, model=model, version=version))
    return Bundle(decode_manifest(data), data, bundle.blobs)


def _variant(candidate: Candidate, blobs: _Blobs) -> Variant:
    expected = _known(candidate.expected)
    return Variant(
        name=candidate.target.name,
        precision=candidate.target.precision,
        requirement=_known(candidate.requirement()),
        model_file=blobs.add(candidate.target.file_name, _known(candidate.model)),
        golden_outputs=blobs.add("golden-outputs.bin", _raw(expected.outputs)),
        golden_tolerance=expected.tolerance,
        evaluation=_known(candidate.evaluation),
    )


def _reference(
    yardstick: Yardstick, answers: NDArray[Any], embedding: NDArray[Any] | None
) -> ReferenceProfile:
    signature, samples = yardstick.signature, yardstick.samples
    given = signature.profiled_input
    reference = build_reference(
        signature.task,
        _numbers(signature, yardstick.inputs),
        answers,
        layout="" if given is None else given.layout,
        columns=() if given is None else given.columns,
        embedding=embedding,
    )
    if samples is None or samples.labels is None or signature.task != "classification":
        return reference
    return with_correct(reference, answers, samples.labels)


def _numbers(signature: Signature, inputs: Inputs) -> NDArray[Any]:
    """Return the first input of numbers, which is profiled; without any, an array of no columns."""
    if signature.profiled_input is not None:
        return inputs[signature.profiled_input.name]
    return np.empty((len(next(iter(inputs.values()))), 0), dtype=np.float32)


def _raw(values: NDArray[Any]) -> bytes:
    if values.dtype == object:
        return encode_text(values)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


def _known(value: T | None) -> T:
    """Return what every sound candidate has."""
    assert value is not None
    return value
