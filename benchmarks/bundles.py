"""Bundles as a hub would have released them, of given files, for benchmarks and the agent's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from fleet.drift.profile import ReferenceProfile
from fleet.protocol.manifest import (
    MANIFEST_FORMAT,
    Evaluation,
    File,
    Manifest,
    Provenance,
    Signature,
    Variant,
)
from fleet.protocol.requirement import RuntimeRequirement, RuntimeVersion

ONNX_RUNTIMES = (RuntimeVersion("onnxruntime", "1.16"),)


class Build(NamedTuple):
    """One build of a model.

    Attributes:
        name: Of the variant.
        file_name: Of the model.
        data: Its bytes.
        runtimes: What runs it.
        memory_bytes: What it needs to run.
        precision: Of its numbers.
    """

    name: str
    file_name: str
    data: bytes
    runtimes: tuple[RuntimeVersion, ...] = ONNX_RUNTIMES
    memory_bytes: int = 100_000
    precision: str = "fp32"


class Golden(NamedTuple):
    """What the self-test computes, and must come to.

    Attributes:
        inputs: Bytes of each input, in the order of the signature.
        outputs: Bytes of the first output.
        samples: How many.
        tolerance: How far an output may be off.
    """

    inputs: Sequence[bytes]
    outputs: bytes
    samples: int
    tolerance: float = 1e-4


class Packed(NamedTuple):
    """A manifest, and its blobs by digest."""

    manifest: Manifest
    blobs: dict[str, bytes]


def packed(
    model: str,
    version: int,
    signature: Signature,
    golden: Golden,
    reference: ReferenceProfile,
    *builds: Build,
) -> Packed:
    """Pack builds of a model, each a variant, into a bundle that nothing is known of but that it is accurate.

    Args:
        model: Its name.
        version: Its number.
        signature: What it takes and gives.
        golden: For its self-test.
        reference: What devices count.
        builds: The variants.
    """
    blobs: dict[str, bytes] = {}

    def file(name: str, data: bytes) -> File:
        sha256 = hashlib.sha256(data).hexdigest()
        blobs[sha256] = data
        return File(name, sha256, len(data))

    manifest = Manifest(
        format=MANIFEST_FORMAT,
        model=model,
        version=version,
        signature=signature,
        golden_inputs=tuple(
            file(f"golden_inputs.{number}", data) for number, data in enumerate(golden.inputs)
        ),
        golden_count=golden.samples,
        variants=tuple(
            Variant(
                name=build.name,
                precision=build.precision,
                requirement=RuntimeRequirement(build.runtimes, len(build.data), build.memory_bytes),
                model_file=file(build.file_name, build.data),
                golden_outputs=file("golden_outputs.f32", golden.outputs),
                golden_tolerance=golden.tolerance,
                evaluation=Evaluation("accuracy", 1.0, 100),
            )
            for build in builds
        ),
        reference=reference,
        provenance=Provenance("none", "0" * 64, "none", {}, version, {}),
    )
    return Packed(manifest, blobs)
