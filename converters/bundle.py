"""Assemble a bundle: from an fp32 model and samples to variants, golden inputs, profile and manifest.

The same inputs give the same bytes, on one machine with one set of library versions; the manifest names them.
Variants are listed smallest model first: that is what travels, and the hub cannot measure a device's speed.
The reference profile is made from the answers of the first variant, which most devices will run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from converters.dataset import Dataset
from converters.evaluate import answer, evaluate
from converters.gate import AccuracyGate, VariantReport
from converters.golden import Expected, choose_golden_inputs, expected_outputs
from converters.graph import INPUT, MINIMUM_RUNTIME_VERSION, OUTPUT, RUNTIME
from converters.quantize import quantize_int8
from fleet.drift.features import build_reference
from fleet.protocol.errors import ModelError
from fleet.protocol.manifest import (
    MANIFEST_FORMAT,
    Evaluation,
    File,
    Manifest,
    Provenance,
    Requirement,
    Signature,
    Tensor,
    Variant,
    decode_manifest,
    encode_manifest,
    manifest_sha256,
)

BUILD_STEPS = ("evaluate", "quantize", "assemble")
"""What `build_bundle` does, in order, as it reports it."""


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
class Build:
    """What `build_bundle` returns.

    Attributes:
        bundle: The bundle.
        variants: What became of each variant, packed or not: fp32, then int8.
    """

    bundle: Bundle
    variants: tuple[VariantReport, ...]


@dataclass(frozen=True)
class _Built:
    """A variant that passed its checks."""

    name: str
    precision: str
    model: bytes
    probabilities: NDArray[np.float32]
    evaluation: Evaluation
    expected: Expected

    def report(self) -> VariantReport:
        return VariantReport(
            self.name,
            packed=True,
            size_bytes=len(self.model),
            evaluation=self.evaluation,
            golden_tolerance=self.expected.tolerance,
        )


@dataclass
class _Blobs:
    """Files under way into a bundle."""

    by_sha256: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, data: bytes) -> File:
        sha256 = hashlib.sha256(data).hexdigest()
        self.by_sha256[sha256] = data
        return File(name=name, sha256=sha256, size_bytes=len(data))


def build_bundle(
    fp32: bytes,
    *,
    model: str,
    version: int,
    held_out: Dataset,
    calibration: NDArray[np.float32],
    gate: AccuracyGate,
    provenance: Provenance,
    on_step: Callable[[str], None] = lambda _: None,
) -> Build:
    """Build, evaluate and pack the variants of a model version.

    Args:
        fp32: The trained model as ONNX, see `converters.graph.tidy`.
        model: Name of the model.
        version: Number of the version.
        held_out: Samples that training did not see.
        calibration: Samples for quantization, shape (N, …); training may have seen them.
        gate: The demanded accuracy.
        provenance: Where the model comes from; its seed is used here too.
        on_step: Called with the name of each of `BUILD_STEPS` when it begins.

    Raises:
        AccuracyTooLow: The fp32 model does not reach the demanded accuracy.
        ConversionFailed: The fp32 model cannot be run, or not be tested by golden inputs.
        InvalidManifest: The name or version cannot be used.
    """
    on_step("evaluate")
    probabilities = answer(fp32, held_out.features)
    evaluation = evaluate(probabilities, held_out)
    gate.check_fp32(evaluation)
    golden = choose_golden_inputs(held_out, probabilities, calibration)
    expected = expected_outputs(fp32, golden, seed=provenance.seed)
    full = _Built("onnx-fp32", "fp32", fp32, probabilities, evaluation, expected)
    on_step("quantize")
    int8 = _quantized(
        full, held_out=held_out, calibration=calibration, golden=golden, gate=gate, seed=provenance.seed
    )
    on_step("assemble")
    packed = [full, int8] if isinstance(int8, _Built) else [full]
    packed.sort(key=lambda variant: len(variant.model))
    bundle = _assembled(
        packed, golden=golden, held_out=held_out, model=model, version=version, provenance=provenance
    )
    return Build(bundle, (full.report(), int8.report() if isinstance(int8, _Built) else int8))


def _quantized(
    full: _Built,
    *,
    held_out: Dataset,
    calibration: NDArray[np.float32],
    golden: NDArray[np.float32],
    gate: AccuracyGate,
    seed: int,
) -> _Built | VariantReport:
    """Return the int8 variant, or the report that says why there is none: fp32 can do without it."""
    name = "onnx-int8"
    size_bytes: int | None = None
    evaluation: Evaluation | None = None
    try:
        model = quantize_int8(full.model, calibration)
        size_bytes = len(model)
        probabilities = answer(model, held_out.features)
        evaluation = evaluate(probabilities, held_out)
        gate.check_quantized(evaluation, full.evaluation)
        expected = expected_outputs(model, golden, seed=seed)
    except ModelError as error:
        return VariantReport(
            name, packed=False, reason=str(error), size_bytes=size_bytes, evaluation=evaluation
        )
    return _Built(name, "int8", model, probabilities, evaluation, expected)


def _assembled(
    packed: Sequence[_Built],
    *,
    golden: NDArray[np.float32],
    held_out: Dataset,
    model: str,
    version: int,
    provenance: Provenance,
) -> Bundle:
    blobs = _Blobs()
    classes = held_out.classes
    manifest = Manifest(
        format=MANIFEST_FORMAT,
        model=model,
        version=version,
        signature=Signature(
            inputs=(Tensor(INPUT, "float32", (-1, *held_out.sample_shape)),),
            outputs=(Tensor(OUTPUT, "float32", (-1, len(classes))),),
            classes=classes,
        ),
        golden_inputs=blobs.add("golden-inputs.bin", _raw(golden)),
        golden_count=len(golden),
        variants=tuple(_variant(built, blobs) for built in packed),
        reference=build_reference(held_out.features, packed[0].probabilities),
        provenance=provenance,
    )
    data = encode_manifest(manifest)
    return Bundle(decode_manifest(data), data, blobs.by_sha256)  # decoding checks what devices will check


def _variant(built: _Built, blobs: _Blobs) -> Variant:
    return Variant(
        name=built.name,
        precision=built.precision,
        requirement=Requirement(RUNTIME, MINIMUM_RUNTIME_VERSION),
        model_file=blobs.add("model.onnx", built.model),
        golden_outputs=blobs.add("golden-outputs.bin", _raw(built.expected.outputs)),
        golden_tolerance=built.expected.tolerance,
        evaluation=built.evaluation,
    )


def _raw(values: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()
