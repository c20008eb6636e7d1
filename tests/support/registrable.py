"""Small bundles as a conversion elsewhere would hand them over, and the same with one thing wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.bundles import Build
from converters.bundles.archive import write_archive
from converters.bundles.bundle import Bundle
from fleet.protocol.manifest import File, Manifest, Signature, Tensor, Variant, encode_manifest
from fleet.protocol.requirement import RuntimeVersion
from tests.support import agent_bundles
from tests.support.agent_bundles import VARIANT, pack
from tests.support.onnx_models import model, value

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


def greedy() -> Bundle:
    """Return a bundle of a model of a few bytes that asks for 64 GiB."""
    return _of_a_number(
        [
            helper.make_node("Reshape", ["count", "one"], ["wanted"]),
            helper.make_node("ConstantOfShape", ["wanted"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["result"], keepdims=0),
        ]
    )


def endless() -> Bundle:
    """Return a bundle of a model of a few bytes that computes for hours."""
    step = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "step",
        [
            value("number", [], TensorProto.INT64),
            value("going", [], TensorProto.BOOL),
            value("before", []),
        ],
        [value("on", [], TensorProto.BOOL), value("after", [])],
    )
    return _of_a_number([helper.make_node("Loop", ["count", "true", "zero"], ["result"], body=step)])


def _of_a_number(nodes: list[onnx.NodeProto]) -> Bundle:
    """Return a bundle of a model that computes ``result`` from ``count``, 2^34, which only its input says."""
    constants: dict[str, NDArray[Any]] = {
        "one": np.array([1], np.int64),
        "true": np.array(True),
        "zero": np.array(0, np.float32),
    }
    taken = {name for node in nodes for name in node.input}
    graph = model(
        [
            helper.make_node("ReduceMax", ["size"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["count"], to=TensorProto.INT64),
            *nodes,
            helper.make_node("Add", ["size", "result"], ["score"]),
        ],
        [value("size", ["N", 1])],
        [value("score", ["N", 1])],
        {name: array for name, array in constants.items() if name in taken},
    )
    signature = Signature(
        inputs=(Tensor("size", "float32", (-1, 1)),),
        outputs=(Tensor("score", "float32", (-1, 1)),),
        task="anomaly",
    )
    sizes = np.full((8, 1), 2.0**34, dtype=np.float32)
    built = Build(VARIANT, "model.onnx", graph.SerializeToString())
    return onnx_alone(pack("digits", 1, signature, {"size": sizes}, sizes, built))


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
