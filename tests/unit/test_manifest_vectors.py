"""Manifests against shared byte vectors: their bytes are their identity, with and without an embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fleet.drift.features import count_block
from fleet.protocol.manifest import Manifest, Signature, decode_manifest, encode_manifest

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "manifests.json").read_text("utf-8"))["cases"]


class SignatureBefore(msgspec.Struct, frozen=True):
    """What releases knew of a signature before there were embeddings."""

    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]
    classes: tuple[str, ...] = ()
    task: str = "classification"


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_a_manifest_is_read_and_written_as_the_vectors_say(case: dict[str, Any]) -> None:
    data = case["manifest"].encode()
    manifest = decode_manifest(data)
    assert encode_manifest(manifest) == data
    embedding = manifest.signature.embedding
    found = None if embedding is msgspec.UNSET else [embedding.name, embedding.shape[1]]
    assert found == case["embedding"]
    assert [tensor.name for tensor in manifest.signature.outputs] == ["probabilities"]


def test_a_release_before_embeddings_passes_over_one() -> None:
    with_one = json.loads(CASES[1]["manifest"])
    before = msgspec.convert(with_one["signature"], SignatureBefore)
    assert [output["name"] for output in before.outputs] == ["probabilities"]
    assert "embedding" not in msgspec.to_builtins(before)
    # and counts what it knows: no embedding is computed, so none is counted
    manifest: Manifest = decode_manifest(CASES[1]["manifest"].encode())
    counted = count_block(manifest.reference, np.zeros((3, 8, 8)), np.eye(2)[[0, 1, 1]])
    assert counted.keys() == {"output.class"}


def test_a_signature_without_an_embedding_is_written_as_before_there_were_any() -> None:
    signature: Signature = decode_manifest(CASES[0]["manifest"].encode()).signature
    assert msgspec.to_builtins(signature).keys() == {"inputs", "outputs", "classes", "task"}
