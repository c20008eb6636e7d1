"""The manifest: the signed description of a bundle.

A bundle is a manifest and the blobs that it names by SHA-256. The manifest travels as JSON with sorted
keys; its bytes are a TUF target ``{model}/{version}.json``, and their SHA-256 is the bundle's identity.
It carries no clock time: the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

from fleet.drift.embedding import MAX_COMPONENTS, component_of
from fleet.drift.profile import ReferenceProfile
from fleet.protocol.chunks import MAX_BLOB_SIZE_BYTES
from fleet.protocol.errors import InvalidManifest, InvalidName, VariantUnsupported
from fleet.protocol.messages import Capabilities
from fleet.protocol.names import Name, Sha256, checked_name
from fleet.protocol.requirement import RuntimeRequirement, suitable_runtime

MANIFEST_FORMAT = 2
MAX_MANIFEST_SIZE_BYTES = 1024 * 1024

Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOB_SIZE_BYTES)]


class File(msgspec.Struct, frozen=True):
    """One file of a bundle.

    Attributes:
        name: Its name in the installed folder.
        sha256: Digest of its bytes, in hexadecimal; also the name of its blob.
        size_bytes: Its size.
    """

    name: Name
    sha256: Sha256
    size_bytes: Size


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input or output of the model.

    Attributes:
        name: The tensor's name in the graph.
        dtype: NumPy's name of the element type, such as ``float32``; ``str`` for text.
        shape: Size of each dimension; -1 for the batch.
        columns: Names of the columns of a table, shape (-1, K); empty where they have none.
        missing: Whether values may be missing (NaN), because the model fills them in itself.
        layout: What the axes of an input are, such as ``NHWC``, see `fleet.drift.inputs`; empty where it is
            not declared.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    missing: bool = False
    layout: str = ""


Task = Literal["classification", "regression", "anomaly", "reconstruction", "clustering"]
"""What a model's first output is.

==================  =========================================================================================
``classification``  a number for each class, shape (N, C): the greatest names the class
``regression``      the values asked for, shape (N, T); also embeddings and whatever else has no other name
``anomaly``         a score for each sample, shape (N, 1): the lower, the stranger
``reconstruction``  the input again, in its shape: the greater the difference, the stranger
``clustering``      the distance to each centre, shape (N, K): the least names the cluster
==================  =========================================================================================
"""


class Signature(msgspec.Struct, frozen=True):
    """What the model takes and gives.

    Attributes:
        inputs: What it takes.
        outputs: What it gives; `Task` says what the first is.
        classes: Names of the classes, of a classification.
        task: What it is for.
        embedding: An output of the model's file that drift is watched on and that nobody is answered with,
            shape (-1, K), see `fleet.drift.embedding`. Most models have none; then nothing is written of it,
            and releases that do not know it pass over it.
    """

    inputs: Annotated[tuple[Tensor, ...], msgspec.Meta(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], msgspec.Meta(min_length=1)]
    classes: tuple[str, ...] = ()
    task: Task = "classification"
    embedding: Tensor | msgspec.UnsetType = msgspec.UNSET

    @property
    def computed(self) -> tuple[Tensor, ...]:
        """What a runtime computes: the outputs, and behind them the embedding."""
        return self.outputs if self.embedding is msgspec.UNSET else (*self.outputs, self.embedding)

    @property
    def profiled_input(self) -> Tensor | None:
        """The input that drift is watched on, the first of numbers; None where all are text."""
        return next((tensor for tensor in self.inputs if tensor.dtype != "str"), None)


Metric = Literal["accuracy", "agreement", "r2", "auroc"]
"""How a variant is judged; for each, 1 is perfect.

=============  ==============================================================================================
``accuracy``   share of samples whose class is the label
``agreement``  share of samples to which the source gives the same class or cluster
``r2``         1 - Σ(answer - truth)² / Σ(truth - mean)², against the targets, or the source's answers where
               there are none: the mean over the values of an answer; of a reconstruction, against the input,
               over all elements at once
``auroc``      area under the receiver operating characteristic of the anomaly score (Fawcett 2006)
=============  ==============================================================================================
"""


class Evaluation(msgspec.Struct, frozen=True):
    """How a variant did on samples that training did not see.

    Attributes:
        metric: What was measured.
        value: The result, 1 at best.
        samples: Number of samples.
    """

    metric: Metric
    value: float
    samples: int


class Variant(msgspec.Struct, frozen=True):
    """One build of the version for a runtime and precision.

    Attributes:
        name: Unique within the bundle, such as ``onnx-int8``.
        precision: ``fp32``, ``fp16``, ``int8`` or ``int4``.
        requirement: What a device must have.
        model_file: The model itself.
        golden_outputs: Raw little-endian float32 outputs for the golden inputs, shape (count, …).
        golden_tolerance: Greatest difference from them that passes the self-test, see
            `fleet.protocol.difference`.
        evaluation: How it did on held-out samples.
    """

    name: Name
    precision: str
    requirement: RuntimeRequirement
    model_file: File
    golden_outputs: File
    golden_tolerance: float
    evaluation: Evaluation

    @property
    def files(self) -> tuple[File, ...]:
        """The files that only this variant needs."""
        return (self.model_file, self.golden_outputs)


class Provenance(msgspec.Struct, frozen=True):
    """Where the version comes from, enough to build it again.

    Attributes:
        dataset: Name of the dataset it was trained on.
        dataset_sha256: Digest of that dataset.
        estimator: What was trained.
        hyperparameters: How.
        seed: Seed of every random choice.
        libraries: Versions of the libraries that shaped the result.
    """

    dataset: str
    dataset_sha256: Sha256
    estimator: str
    hyperparameters: dict[str, int | float | str | bool]
    seed: int
    libraries: dict[str, str]


class Manifest(msgspec.Struct, frozen=True):
    """The description of a bundle.

    Attributes:
        format: Version of this layout.
        model: Name of the model.
        version: Number of the version, from 1.
        signature: Inputs, outputs, classes.
        golden_inputs: Inputs of the self-test, a file for each input in the signature's order: numbers raw
            and little-endian, shape (golden_count, …); text as `fleet.protocol.text` lays it out.
        golden_count: How many there are.
        variants: The builds, best first as the hub prefers them.
        reference: The reference profile for drift.
        provenance: Where the version comes from.
    """

    format: int
    model: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    signature: Signature
    golden_inputs: tuple[File, ...]
    golden_count: Annotated[int, msgspec.Meta(ge=1)]
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(min_length=1)]
    reference: ReferenceProfile
    provenance: Provenance

    def variant(self, name: str) -> Variant:
        """Return the variant of that name.

        Raises:
            InvalidManifest: There is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise InvalidManifest(f"{self.model} version {self.version} has no variant {name!r:.80}.")

    def files(self, variant: Variant) -> tuple[File, ...]:
        """Return every file that a device needs to install the variant."""
        return (*variant.files, *self.golden_inputs)


def target_path(model: str, version: int) -> str:
    """Return the TUF target path of a version's manifest."""
    return f"{model}/{version}.json"


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's bytes: JSON, keys sorted, without spaces."""
    return msgspec.json.encode(manifest, order="deterministic")


# Made here, once: msgspec learns a type at its first use, and crashes if two threads use it first at once.
_DECODER = msgspec.json.Decoder(Manifest)


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in bytes **that were verified against trusted metadata**.

    Raises:
        InvalidManifest: The bytes are not a manifest that this release understands.
    """
    if len(data) > MAX_MANIFEST_SIZE_BYTES:
        raise InvalidManifest(f"The manifest has {len(data)} bytes; {MAX_MANIFEST_SIZE_BYTES} are allowed.")
    try:
        manifest = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidManifest(f"The manifest cannot be understood: {error}.") from error
    if manifest.format != MANIFEST_FORMAT:
        raise InvalidManifest(
            f"The manifest has format {manifest.format}; this release reads {MANIFEST_FORMAT}.",
            remedy="Update the agent.",
        )
    _check_consistent(manifest)
    return manifest


def manifest_sha256(data: bytes) -> str:
    """Return the digest that identifies the bundle."""
    return hashlib.sha256(data).hexdigest()


def choose_variant(manifest: Manifest, device: Capabilities) -> Variant:
    """Choose the first variant, in the manifest's order of preference, that a device can run.

    Args:
        manifest: The version's description.
        device: What the device can run.

    Raises:
        VariantUnsupported: There is none; the message says for each why not.
    """
    reasons = []
    for variant in manifest.variants:
        try:
            suitable_runtime(variant.requirement, device)
        except VariantUnsupported as error:
            reasons.append(f"{variant.name}: {error}")
        else:
            return variant
    raise VariantUnsupported(
        f"The device can run no variant of {manifest.model} version {manifest.version}. {' '.join(reasons)}"
    )


def _check_consistent(manifest: Manifest) -> None:
    """Check what the types cannot say."""
    names = [variant.name for variant in manifest.variants]
    if len(set(names)) != len(names):
        raise InvalidManifest("The manifest has two variants of one name.")
    if len(manifest.golden_inputs) != len(manifest.signature.inputs):
        raise InvalidManifest("The manifest does not have golden inputs for each of the model's inputs.")
    _check_task(manifest.signature)
    _check_embedding(manifest.signature, manifest.reference)
    for variant in manifest.variants:
        files = [file.name for file in manifest.files(variant)]
        try:
            for name in files:
                checked_name(name, "file name")
        except InvalidName as error:
            raise InvalidManifest(f"The manifest has an unusable file name: {error}") from error
        if len(set(files)) != len(files):
            raise InvalidManifest(f"Variant {variant.name} has two files of one name.")


def _check_task(signature: Signature) -> None:
    """Check that a device can judge the first output: by number, and by the input where it is one again."""
    output = signature.outputs[0]
    if output.dtype == "str":
        raise InvalidManifest(f"The first output, {output.name!r:.80}, is text; it must be numbers.")
    given = signature.profiled_input
    if signature.task == "reconstruction" and (given is None or given.shape[1:] != output.shape[1:]):
        raise InvalidManifest(f"The first output, {output.name!r:.80}, does not have the shape of the input.")


def _check_embedding(signature: Signature, reference: ReferenceProfile) -> None:
    """Check that an embedding is a few numbers for each sample, and that no others are profiled."""
    embedding = signature.embedding
    sizes: tuple[int, ...] = (0,)
    if embedding is not msgspec.UNSET:
        sizes = embedding.shape[1:]
        if embedding.dtype != "float32" or len(sizes) != 1 or not 1 <= sizes[0] <= MAX_COMPONENTS:
            raise InvalidManifest(
                f"The embedding {embedding.name!r:.80} is {embedding.dtype!r:.40} of the shape"
                f" {embedding.shape}; it must be float32, 1 to {MAX_COMPONENTS} numbers for each sample."
            )
        if embedding.name in {tensor.name for tensor in (*signature.inputs, *signature.outputs)}:
            raise InvalidManifest(f"The embedding has the name of another tensor, {embedding.name!r:.80}.")
    for feature in reference.features:
        component = component_of(feature.name)
        if component is not None and component >= sizes[0]:
            raise InvalidManifest(f"The reference profile has {feature.name}, which the model does not give.")
