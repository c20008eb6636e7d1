"""Verification: whether a bundle that somebody else made keeps its word.

A manifest is a list of claims. Those on which devices and the hub rely are tested here, as far as the bundle
alone allows:

=====================  =======================================================================================
claim                  test
=====================  =======================================================================================
golden outputs         each variant is loaded and answers the golden inputs on its runtime: finite, of the
                       shape that the task asks for, and within the tolerance
tolerance              above 0, and no greater than `converters.judging.golden.MAX_TOLERANCE`: a test that
                       lets everything pass proves nothing
other outputs          they are there, and finite for the golden inputs; an embedding has the size stated
requirement            size is that of the file; runtimes, versions and memory no less than the model's bytes
                       ask for (`converters.runtimes`), or it would be offered to a device that cannot run it;
                       no operators for one kind of processor
golden inputs          hold what the signature says, and values only as it allows them
reference profile      its features are those of the task, in the layout that devices count into
provenance             text that can be shown, a seed that is one
evaluation             possible: at best 1, on at least one sample
=====================  =======================================================================================

What was measured on samples that are not in the bundle, such as an accuracy, cannot be tested; it stays the
word of whoever made the bundle. Models run here without any trust in them: do it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.bundles.bundle import Bundle
from converters.bundles.verify_manifest import (
    check_provenance,
    check_reference,
    check_signature,
    check_variant,
)
from converters.bundles.verify_requirement import check_requirement
from converters.data.samples import Inputs
from converters.judging.golden import MAX_TOLERANCE
from converters.runtimes.runtime import Runtime, Session
from fleet.protocol.difference import scaled_differences
from fleet.protocol.errors import ConversionFailed, InvalidManifest, InvalidMessage, SelfTestFailed
from fleet.protocol.manifest import Manifest, Signature, Tensor, Variant
from fleet.protocol.text import decode_text


class Verified(msgspec.Struct, frozen=True):
    """A variant that kept its word.

    Attributes:
        name: Of the variant.
        runtime: What it was run on.
        difference: Greatest absolute difference to its golden outputs.
    """

    name: str
    runtime: str
    difference: float


def verify(
    bundle: Bundle, on_step: Callable[[str, int, int], None] = lambda _step, _done, _of: None
) -> tuple[Verified, ...]:
    """Test what a bundle claims.

    Args:
        bundle: Its blobs are those that its manifest names, as `read_archive` gives it.
        on_step: Called with the name of each variant when its test begins, its number from 0, and how many
            there are.

    Returns:
        What was found of each variant, in the manifest's order.

    Raises:
        InvalidManifest: A claim is false, or cannot be tested here.
        SelfTestFailed: A variant cannot be run, or does not give its golden outputs.
    """
    manifest = bundle.manifest
    check_signature(manifest.signature)
    check_reference(manifest)
    check_provenance(manifest.provenance)
    for variant in manifest.variants:
        check_variant(variant)
    inputs = _golden_inputs(bundle)
    found = []
    for number, variant in enumerate(manifest.variants):
        on_step(variant.name, number, len(manifest.variants))
        found.append(_verified(bundle, variant, inputs))
    return tuple(found)


def _verified(bundle: Bundle, variant: Variant, inputs: Inputs) -> Verified:
    signature = bundle.manifest.signature
    expected = _expected(bundle, variant)
    runtime, model = _runtime_of(variant), bundle.blobs[variant.model_file.sha256]
    try:
        session = runtime.open(model, signature)  # first: only runtimes verify what is in their own formats
        check_requirement(variant, runtime.footprint(model, signature), model)
        answers = _answers(session, signature, inputs)
        for output in signature.computed[1:]:
            _check_further(runtime, model, msgspec.structs.replace(signature, outputs=(output,)), inputs)
    except ConversionFailed as error:
        told = " ".join(str(error).split())  # what runtimes say has lines
        raise SelfTestFailed(f"Variant {variant.name}: {told}") from error
    if answers.dtype.kind not in "iufb" or not np.isfinite(answers).all():
        raise SelfTestFailed(f"Variant {variant.name} answers golden inputs with values that are not finite.")
    _check_shape(variant, bundle.manifest, answers)
    rows = answers.reshape(len(answers), -1).astype(np.float64)
    if rows.shape != expected.shape:
        raise SelfTestFailed(
            f"Variant {variant.name} answers with shape {rows.shape}, golden outputs have {expected.shape}."
        )
    difference = float(scaled_differences(rows, expected).max())
    if not difference <= variant.golden_tolerance:
        raise SelfTestFailed(
            f"Answers of variant {variant.name} to the golden inputs differ by {difference:.3g};"
            f" {variant.golden_tolerance:.3g} is allowed.",
            remedy="Was it converted by another release of its runtime? Convert it again with this one.",
        )
    return Verified(variant.name, runtime.name, difference)


def _check_further(runtime: Runtime, model: bytes, signature: Signature, inputs: Inputs) -> None:
    """Check an output that is served and not judged: devices count an infinite one as a failure."""
    answers, output = _answers(runtime.open(model, signature), signature, inputs), signature.outputs[0]
    if answers.dtype.kind == "f" and not np.isfinite(answers).all():
        raise ConversionFailed(f"Output {output.name!r:.80} has values that are not finite.")
    if output is signature.embedding and answers.shape[1:] != output.shape[1:]:
        raise ConversionFailed(f"The embedding {output.name!r:.80} has the shape {answers.shape}.")


def _answers(session: Session, signature: Signature, inputs: Inputs) -> NDArray[Any]:
    """Return the first output for all golden inputs, in batches of the size that the model takes."""
    count = len(next(iter(inputs.values())))
    fixed = max(tensor.shape[0] for tensor in signature.inputs)
    size = fixed if fixed > 0 else count
    batches = []
    for start in range(0, count, size):
        answer = np.asarray(
            session.run({name: values[start : start + size] for name, values in inputs.items()})
        )
        samples = min(size, count - start)
        if answer.shape[:1] != (samples,):
            raise ConversionFailed(f"{samples} samples are answered with shape {answer.shape}.")
        batches.append(answer)
    return np.concatenate(batches)


def _runtime_of(variant: Variant) -> Runtime:
    """Return what runs a variant here; tflite-runtime is the older name of LiteRT."""
    from converters.runtimes.onnx import ONNXRUNTIME
    from converters.runtimes.tflite import LITERT

    known = {"onnxruntime": ONNXRUNTIME, "litert": LITERT, "tflite-runtime": LITERT}
    names = [runtime.name for runtime in variant.requirement.runtimes]
    found = [known[name] for name in names if name in known]
    if len(found) != len(names) or any(runtime is not found[0] for runtime in found):
        raise InvalidManifest(
            f"Variant {variant.name} is for {', '.join(names):.200}, on which it cannot be tested here.",
            remedy=f"A variant is for {' or '.join(sorted(known))}; leave others out.",
        )
    return found[0]


def _check_shape(variant: Variant, manifest: Manifest, answers: NDArray[Any]) -> None:
    """Check that answers have the elements that the task asks for."""
    signature = manifest.signature
    given = signature.profiled_input
    wanted = None
    if signature.task == "classification" and signature.classes:
        wanted = len(signature.classes)
    elif signature.task == "anomaly":
        wanted = 1
    elif signature.task == "reconstruction" and given is not None and -1 not in given.shape[1:]:
        wanted = int(np.prod(given.shape[1:]))
    elements = answers.size // len(answers)
    if elements == 0 or wanted not in (None, elements):
        raise SelfTestFailed(
            f"Variant {variant.name} answers one sample with {elements} numbers; {signature.task} of this"
            f" signature asks for {'some' if wanted is None else wanted}."
        )


def _expected(bundle: Bundle, variant: Variant) -> NDArray[np.float64]:
    """Return a variant's golden outputs, shape (count, elements), when its tolerance is fit for them."""
    data = bundle.blobs[variant.golden_outputs.sha256]
    count = bundle.manifest.golden_count
    if not data or len(data) % (4 * count):
        raise InvalidManifest(
            f"The golden outputs of variant {variant.name} have {len(data)} bytes, which is no multiple of"
            f" {count} answers in float32."
        )
    outputs = np.frombuffer(data, dtype="<f4").reshape(count, -1).astype(np.float64)
    if not np.isfinite(outputs).all():
        raise InvalidManifest(f"The golden outputs of variant {variant.name} are not all finite.")
    if not 0.0 < variant.golden_tolerance <= MAX_TOLERANCE:
        raise InvalidManifest(
            f"The tolerance of variant {variant.name} is {variant.golden_tolerance:.3g}; above 0 and at most"
            f" {MAX_TOLERANCE:g} is allowed."
        )
    return outputs


def _golden_inputs(bundle: Bundle) -> Inputs:
    manifest = bundle.manifest
    return {
        tensor.name: _golden(tensor, bundle.blobs[file.sha256], manifest.golden_count)
        for tensor, file in zip(manifest.signature.inputs, manifest.golden_inputs, strict=True)
    }


def _golden(tensor: Tensor, data: bytes, count: int) -> NDArray[Any]:
    shape = (count, *tensor.shape[1:])
    try:
        if tensor.dtype == "str":
            return decode_text(data, shape)
        dtype = np.dtype(tensor.dtype)
        values = np.frombuffer(data, dtype=dtype.newbyteorder("<")).reshape(shape).astype(dtype)
    except (InvalidMessage, ValueError, OverflowError) as error:
        raise InvalidManifest(
            f"The golden inputs of {tensor.name!r:.80} are not {count} samples as the signature has them."
        ) from error
    if np.isinf(values).any() or (not tensor.missing and np.isnan(values).any()):
        raise InvalidManifest(f"The golden inputs of {tensor.name!r:.80} have values that are not finite.")
    return values
