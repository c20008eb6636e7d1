"""The manifest: the signed description of a bundle.

A bundle is a manifest and the blobs that it names by SHA-256. The manifest travels as JSON with sorted
keys; its bytes are a TUF target ``{model}/{version}.json``, and their SHA-256 is the bundle's identity.
It carries no clock time: the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

import msgspec

from fleet.drift.profile import ReferenceProfile
from fleet.protocol.chunks import MAX_BLOB_SIZE_BYTES
from fleet.protocol.errors import InvalidManifest, InvalidName, VariantUnsupported
from fleet.protocol.names import Name, Sha256, checked_name

MANIFEST_FORMAT = 1
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


class Tensor(msgspec.Struct, frozen=True):
    """One input or output of the model.

    Attributes:
        name: The tensor's name in the graph.
        dtype: NumPy's name of the element type, such as ``float32``.
        shape: Size of each dimension; -1 for the batch.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


class Signature(msgspec.Struct, frozen=True):
    """What the model takes and gives, and what its classes are called."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    classes: tuple[str, ...]


class Requirement(msgspec.Struct, frozen=True):
    """What a device must have to run a variant.

    Attributes:
        runtime: Name of the runtime: ``onnxruntime``.
        minimum_version: Lowest version of it that runs the variant.
    """

    runtime: Name
    minimum_version: str


class Evaluation(msgspec.Struct, frozen=True):
    """How a variant did on samples that training did not see.

    Attributes:
        accuracy: Share of correct answers, 0 to 1.
        samples: Number of samples.
    """

    accuracy: float
    samples: int


class Variant(msgspec.Struct, frozen=True):
    """One build of the version for a runtime and precision.

    Attributes:
        name: Unique within the bundle, such as ``onnx-int8``.
        precision: ``fp32`` or ``int8``.
        requirement: What a device must have.
        model_file: The model itself.
        golden_outputs: Raw little-endian float32 outputs for the golden inputs, shape (count, …).
        golden_tolerance: Greatest absolute difference from them that passes the self-test.
        evaluation: How it did on held-out samples.
    """

    name: Name
    precision: str
    requirement: Requirement
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
        golden_inputs: Raw little-endian inputs of the self-test, shape (golden_count, …).
        golden_count: How many there are.
        variants: The builds, best first as the hub prefers them.
        reference: The reference profile for drift.
        provenance: Where the version comes from.
    """

    format: int
    model: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    signature: Signature
    golden_inputs: File
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
        return (*variant.files, self.golden_inputs)


def target_path(model: str, version: int) -> str:
    """Return the TUF target path of a version's manifest."""
    return f"{model}/{version}.json"


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's bytes: JSON, keys sorted, without spaces."""
    return msgspec.json.encode(manifest, order="deterministic")


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in bytes **that were verified against trusted metadata**.

    Raises:
        InvalidManifest: The bytes are not a manifest that this release understands.
    """
    if len(data) > MAX_MANIFEST_SIZE_BYTES:
        raise InvalidManifest(f"The manifest has {len(data)} bytes; {MAX_MANIFEST_SIZE_BYTES} are allowed.")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
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


def choose_variant(manifest: Manifest, runtimes: dict[str, str]) -> Variant:
    """Choose the first variant, in the manifest's order of preference, that a device can run.

    Args:
        manifest: The version's description.
        runtimes: The device's runtimes and their versions.

    Raises:
        VariantUnsupported: There is none.
    """
    for variant in manifest.variants:
        version = runtimes.get(variant.requirement.runtime)
        if version and version_key(version) >= version_key(variant.requirement.minimum_version):
            return variant
    needs = ", ".join(
        sorted({f"{v.requirement.runtime}>={v.requirement.minimum_version}" for v in manifest.variants})
    )
    has = ", ".join(f"{name} {version}" for name, version in sorted(runtimes.items())) or "none"
    raise VariantUnsupported(
        f"{manifest.model} version {manifest.version} needs one of {needs}; the device has {has}."
    )


def version_key(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version text, for comparing: "1.20.1rc1" gives (1, 20, 1)."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()


def _check_consistent(manifest: Manifest) -> None:
    """Check what the types cannot say."""
    names = [variant.name for variant in manifest.variants]
    if len(set(names)) != len(names):
        raise InvalidManifest("The manifest has two variants of one name.")
    for variant in manifest.variants:
        files = [file.name for file in manifest.files(variant)]
        try:
            for name in files:
                checked_name(name, "file name")
        except InvalidName as error:
            raise InvalidManifest(f"The manifest has an unusable file name: {error}") from error
        if len(set(files)) != len(files):
            raise InvalidManifest(f"Variant {variant.name} has two files of one name.")
