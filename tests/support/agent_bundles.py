"""Real bundles for the agent's tests: small models, their manifests and blobs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from agent.capabilities import measure
from agent.hosting.hosted import Hosted
from agent.hosting.loading import load
from agent.life.slots import Slot
from agent.life.terms import Release
from benchmarks.bundles import Build, Golden, packed
from fleet.drift.features import build_reference
from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.manifest import (
    File,
    Manifest,
    Signature,
    Tensor,
    Variant,
    encode_manifest,
    manifest_sha256,
)
from fleet.protocol.requirement import RuntimeVersion
from fleet.protocol.text import encode_text
from tests.support import agent_models as models
from tests.support.agent_models import CLASSES, PIXELS
from tests.support.agent_tflite import dense_softmax

MODEL = "digits"
VARIANT = "onnx-fp32"
TFLITE_VARIANT = "tflite-fp32"
WRONG = "onnx-wrong"
SLOW = "onnx-slow"
GOLDEN = 8

TFLITE_RUNTIMES = (RuntimeVersion("litert", "2.0"), RuntimeVersion("tflite-runtime", "2.14"))

Arrays = dict[str, NDArray[Any]]


class Bundle(NamedTuple):
    """A version as the hub would have released it.

    Attributes:
        manifest: The description.
        blobs: The files by digest.
        ordered: The variant that a test's hub orders.
        alternatives: What it offers besides.
        policy: How the device is to choose.
    """

    manifest: Manifest
    blobs: dict[str, bytes]
    ordered: str = VARIANT
    alternatives: tuple[str, ...] = ()
    policy: VariantPolicy = VariantPolicy.FIRST

    @property
    def data(self) -> bytes:
        """The manifest's bytes."""
        return encode_manifest(self.manifest)

    @property
    def sha256(self) -> str:
        """The bundle's identity."""
        return manifest_sha256(self.data)

    @property
    def variant(self) -> Variant:
        """The variant that is ordered."""
        return self.manifest.variant(self.ordered)

    @property
    def model_blob(self) -> str:
        """Digest of the ordered variant's model."""
        return self.variant.model_file.sha256

    @property
    def files(self) -> tuple[File, ...]:
        """What a device needs for it."""
        return self.manifest.files(self.variant)

    def ordering(self, variant: str) -> Bundle:
        """Return the bundle with another variant ordered."""
        return self._replace(ordered=variant)

    def offering(self, policy: VariantPolicy, *variants: str) -> Bundle:
        """Return the bundle with a choice of variants ordered."""
        return self._replace(ordered=variants[0], alternatives=variants[1:], policy=policy)

    def requiring(self, **changes: Any) -> Bundle:
        """Return the bundle with another requirement of the ordered variant."""
        requirement = msgspec.structs.replace(self.variant.requirement, **changes)
        changed = msgspec.structs.replace(self.variant, requirement=requirement)
        variants = tuple(changed if each.name == self.ordered else each for each in self.manifest.variants)
        return self._replace(manifest=msgspec.structs.replace(self.manifest, variants=variants))


@cache  # many tests build the same, and none changes it
def build(
    version: int,
    *,
    model: str = MODEL,
    padding_bytes: int = 0,
    negative_gives_nan: bool = False,
    golden_error: float = 0.0,
    batch: int | None = None,
    others: tuple[str, ...] = (),
) -> Bundle:
    """Build a version of a classifier of four pixels, for ONNX Runtime and for LiteRT.

    Args:
        version: Its number; also the seed of its weights.
        model: Name of the model.
        padding_bytes: Unused weights of the ONNX model, to make a blob of several chunks.
        negative_gives_nan: Let the ONNX model answer NaN to inputs of negative sum; no golden input has one.
        golden_error: Added to the golden outputs, so that the self-test fails.
        batch: The one size of batch that it takes; None: any.
        others: More variants for ONNX Runtime: `WRONG` answers otherwise than the golden outputs, `SLOW`
            takes some 10 ms for every answer.
    """
    rng = np.random.default_rng(version)
    weights = rng.normal(size=(PIXELS, CLASSES)).astype(np.float32)
    padding = rng.bytes(padding_bytes)
    made = models.linear(weights, padding=padding, negative_gives_nan=negative_gives_nan, batch=batch or "N")
    size = batch or -1
    signature = Signature(
        inputs=(Tensor("pixels", "float32", (size, PIXELS)),),
        outputs=(Tensor("probabilities", "float32", (size, CLASSES)),),
        classes=tuple("abc"),
    )
    inputs = np.random.default_rng(7).random((GOLDEN, PIXELS)).astype(np.float32)  # shared by all versions
    logits = np.exp(inputs @ weights)
    return pack(
        model,
        version,
        signature,
        {"pixels": inputs},
        logits / logits.sum(axis=1, keepdims=True),
        Build(VARIANT, "model.onnx", made),
        Build(TFLITE_VARIANT, "model.tflite", dense_softmax(weights), TFLITE_RUNTIMES),
        *(Build(name, f"{name}.onnx", _OTHERS[name](weights)) for name in others),
        golden_error=golden_error,
    )


def build_costly(version: int, *, rounds: int = 0, numbers: int = 0) -> Bundle:
    """Build the same classifier as `build`, that costs time or memory where a pixel is above 1."""
    return _build_like(
        version, models.costly(_weights(version), rounds=rounds, numbers=numbers), "model.onnx"
    )


def build_mapped(version: int, shift: NDArray[np.float32]) -> Bundle:
    """Build a classifier of which the runtime maps the file: who writes to it changes the model in memory."""
    made = models.shifted(_weights(version), shift)
    return _build_like(version, made, "model.ort", shift)


def _weights(version: int) -> NDArray[np.float32]:
    return np.random.default_rng(version).normal(size=(PIXELS, CLASSES)).astype(np.float32)


def _build_like(
    version: int, made: bytes, file_name: str, shift: NDArray[np.float32] | float = 0.0
) -> Bundle:
    """Pack a classifier with the signature of `build`."""
    signature = Signature(
        inputs=(Tensor("pixels", "float32", (-1, PIXELS)),),
        outputs=(Tensor("probabilities", "float32", (-1, CLASSES)),),
        classes=tuple("abc"),
    )
    inputs = np.random.default_rng(7).random((GOLDEN, PIXELS)).astype(np.float32)
    logits = np.exp(inputs @ _weights(version) + shift)
    outputs = logits / logits.sum(axis=1, keepdims=True)
    return pack(MODEL, version, signature, {"pixels": inputs}, outputs, Build(VARIANT, file_name, made))


_OTHERS: dict[str, Callable[[NDArray[np.float32]], bytes]] = {
    WRONG: lambda weights: models.linear(weights + 1.0 * np.eye(PIXELS, CLASSES, dtype=np.float32)),
    SLOW: lambda weights: models.linear(weights, idle_rounds=20_000),
}


def build_tabular(version: int = 1) -> Bundle:
    """Build a classifier of numbers, which may be missing, and text; it answers numbers and text."""
    signature = Signature(
        inputs=(
            Tensor("numbers", "float32", (-1, 2), columns=("age", "children"), missing=True),
            Tensor("city", "str", (-1, 1), columns=("city",)),
        ),
        outputs=(Tensor("probabilities", "float32", (-1, 2)), Tensor("label", "str", (-1,))),
        classes=models.TABULAR_CLASSES,
    )
    numbers = np.random.default_rng(3).normal(size=(GOLDEN, 2)).astype(np.float32)
    numbers[0, 0] = np.nan
    cities = np.array([["lyon"], ["oslo"], ["Århus"], [""]] * (GOLDEN // 4), dtype=object)
    golden: Arrays = {"numbers": numbers, "city": cities}
    return _build_onnx("visits", version, signature, golden, models.tabular())


def build_word_score(version: int = 1) -> Bundle:
    """Build an anomaly score of text alone."""
    signature = Signature(
        inputs=(Tensor("word", "str", (-1, 1)),),
        outputs=(Tensor("score", "float32", (-1, 1)),),
        task="anomaly",
    )
    words = np.array([["known"], ["rare"]] * (GOLDEN // 2), dtype=object)
    return _build_onnx("words", version, signature, {"word": words}, models.word_score())


def build_halving(version: int = 1) -> Bundle:
    """Build a reconstruction of small frames."""
    signature = Signature(
        inputs=(Tensor("frame", "float32", (-1, 2, 2)),),
        outputs=(Tensor("copy", "float32", (-1, 2, 2)),),
        task="reconstruction",
    )
    frames = np.random.default_rng(5).random((GOLDEN, 2, 2)).astype(np.float32)
    return _build_onnx("frames", version, signature, {"frame": frames}, models.halving())


def unpack(bundle: Bundle, folder: Path) -> Slot:
    """Put a bundle's files where they would be installed."""
    for file in bundle.files:
        (folder / file.name).write_bytes(bundle.blobs[file.sha256])
    release = Release(bundle.manifest.version, bundle.sha256, bundle.ordered)
    return Slot(release, bundle.manifest, bundle.variant, folder)


async def load_bundle(bundle: Bundle, folder: Path, *, timeout_s: float = 5.0) -> Hosted:
    """Load a bundle as this device would."""
    return await load(unpack(bundle, folder), measure(folder), timeout_s)


def expected_class(version: int, pixels: list[float]) -> int:
    """Return the class that a version gives for one sample."""
    weights = np.random.default_rng(version).normal(size=(PIXELS, CLASSES)).astype(np.float32)
    return int((np.asarray(pixels, dtype=np.float32) @ weights).argmax())


def pack(
    model: str,
    version: int,
    signature: Signature,
    golden: Arrays,
    outputs: NDArray[np.float32],
    *builds: Build,
    golden_error: float = 0.0,
) -> Bundle:
    """Pack builds of a model into a bundle.

    Args:
        model: Its name.
        version: Its number.
        signature: What it takes and gives.
        golden: Golden inputs by name, shape (count, …).
        outputs: What it answers to them.
        builds: The variants.
        golden_error: Added to the golden outputs.
    """
    # For a model of text alone the reference has features of numbers too: the device finds them missing.
    columns = [golden[tensor.name] for tensor in signature.inputs if tensor.dtype != "str"]
    numbers = columns[0] if columns else np.zeros((len(outputs), 1))
    manifest, blobs = packed(
        model,
        version,
        signature,
        Golden(
            [_encoded(golden[tensor.name]) for tensor in signature.inputs],
            (outputs + np.float32(golden_error)).astype("<f4").tobytes(),
            len(outputs),
        ),
        build_reference(signature.task, numbers, outputs),
        *builds,
    )
    return Bundle(manifest, blobs, builds[0].name)


def _build_onnx(model: str, version: int, signature: Signature, golden: Arrays, made: bytes) -> Bundle:
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    outputs: NDArray[np.float32] = session.run([signature.outputs[0].name], golden)[0]
    return pack(model, version, signature, golden, outputs, Build(VARIANT, "model.onnx", made))


def _encoded(values: NDArray[Any]) -> bytes:
    return encode_text(values) if values.dtype == object else values.astype("<f4").tobytes()
