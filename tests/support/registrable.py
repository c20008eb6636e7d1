"""Small bundles as a conversion elsewhere would hand them over, and the same with one thing wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from converters.archive import write_archive
from converters.bundle import Bundle
from fleet.protocol.manifest import File, Manifest, Variant, encode_manifest
from fleet.protocol.requirement import RuntimeVersion
from tests.support import agent_bundles
from tests.support.agent_bundles import VARIANT

ONNXRUNTIME = RuntimeVersion("onnxruntime", "1.20")


def small_bundle(seed: int = 1, **changes: Any) -> Bundle:
    """Return a bundle of a classifier of four pixels, for ONNX Runtime and for LiteRT.

    Args:
        seed: Of its weights.
        changes: See `tests.support.agent_bundles.build`.
    """
    built = agent_bundles.build(seed, **changes).requiring(runtimes=(ONNXRUNTIME,))
    return Bundle(built.manifest, built.data, built.blobs)


def onnx_alone(bundle: agent_bundles.Bundle) -> Bundle:
    """Return a bundle of one ONNX variant as one that could be registered."""
    built = bundle.requiring(runtimes=(ONNXRUNTIME,))
    return Bundle(built.manifest, built.data, built.blobs)


def with_manifest(bundle: Bundle, **changes: Any) -> Bundle:
    """Return the bundle with fields of the manifest changed."""
    manifest = msgspec.structs.replace(bundle.manifest, **changes)
    return Bundle(manifest, encode_manifest(manifest), bundle.blobs)


def with_variant(bundle: Bundle, change: Callable[[Variant], Variant], name: str = VARIANT) -> Bundle:
    """Return the bundle with one variant changed."""
    variants = tuple(change(each) if each.name == name else each for each in bundle.manifest.variants)
    return with_manifest(bundle, variants=variants)


def with_file(bundle: Bundle, file: File, data: bytes) -> Bundle:
    """Return the bundle with other contents in place of one file, the manifest saying so."""
    sha256 = hashlib.sha256(data).hexdigest()
    changed = File(file.name, sha256, len(data))
    text = encode_manifest(bundle.manifest).replace(encode_file(file), encode_file(changed))
    manifest = msgspec.json.decode(text, type=Manifest)
    blobs = {key: value for key, value in bundle.blobs.items() if key != file.sha256}
    return Bundle(manifest, encode_manifest(manifest), {**blobs, sha256: data})


def encode_file(file: File) -> bytes:
    """Return a file's part of a manifest."""
    return msgspec.json.encode(file, order="deterministic")


def archive(bundle: Bundle) -> bytes:
    """Return a bundle's archive."""
    return b"".join(write_archive(bundle))


def write(path: Path, data: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(data)
    return path
