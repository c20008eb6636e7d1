"""A device with one model, as an installation leaves it: its state folder, written by the agent's own code.

The device has enrolled, and its broker does not answer: it serves what is installed, as devices offline do.
No hub takes processor time while it is measured.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from agent.blobs import BlobStore
from agent.identity import Identity, write_identity
from agent.life.slots import Slots
from agent.life.store import LifeStore, Stored
from agent.life.terms import Life, Phase, Release
from agent.settings import write_settings
from benchmarks.serving.models import CLASSES, INPUT, OUTPUT, Model
from fleet.drift.features import build_reference
from fleet.protocol.enrolment import BrokerAccess
from fleet.protocol.manifest import (
    MANIFEST_FORMAT,
    Evaluation,
    File,
    Manifest,
    Provenance,
    Signature,
    Tensor,
    Variant,
    encode_manifest,
    manifest_sha256,
)
from fleet.protocol.requirement import RuntimeRequirement, RuntimeVersion

ONNX, TFLITE = "onnx-fp32", "tflite-fp32"
VERSION = 1
_GOLDEN, _PROFILED = 4, 256
_RUNTIMES = {ONNX: RuntimeVersion("onnxruntime", "1.16"), TFLITE: RuntimeVersion("litert", "2.0")}
_NOBODY = BrokerAccess("127.0.0.1", 1, "device", "no broker is asked for it")


def write_device(state: Path, model: Model, variant: str, built: bytes, **settings: Any) -> None:
    """Make a state folder.

    Args:
        state: The folder to create.
        model: The model that is installed.
        variant: Which variant of it.
        built: The variant's file.
        settings: Settings of the agent that differ from the defaults.
    """
    blobs = BlobStore(state / "blobs")
    manifest = _manifest(model, variant, built, blobs)
    data = encode_manifest(manifest)
    release = Release(VERSION, manifest_sha256(data), variant)
    slots = Slots(state / "models", blobs)
    slots.stage(model.name, release, data)
    slots.install(model.name, release)
    life = Life(Phase.COMMITTED, "benchmark", active=release, ordered=release)
    LifeStore(state / "life").save(model.name, Stored(life))
    write_settings(state, settings)
    write_identity(state, Identity("device", "http://127.0.0.1:1", _NOBODY, b"{}"))


def _manifest(model: Model, variant: str, built: bytes, blobs: BlobStore) -> Manifest:
    session = onnxruntime.InferenceSession(model.onnx(), providers=["CPUExecutionProvider"])
    samples = model.samples(_PROFILED)
    answers = np.asarray(session.run([OUTPUT], {INPUT: samples})[0])

    def file(name: str, data: bytes) -> File:
        sha256 = hashlib.sha256(data).hexdigest()
        blobs.path(sha256).write_bytes(data)
        return File(name, sha256, len(data))

    name = "model.onnx" if variant == ONNX else "model.tflite"
    return Manifest(
        format=MANIFEST_FORMAT,
        model=model.name,
        version=VERSION,
        signature=Signature(
            inputs=(Tensor(INPUT, "float32", (-1, *model.shape)),),
            outputs=(Tensor(OUTPUT, "float32", (-1, CLASSES)),),
            task="classification",
        ),
        golden_inputs=(file("golden_inputs.f32", samples[:_GOLDEN].tobytes()),),
        golden_count=_GOLDEN,
        variants=(
            Variant(
                name=variant,
                precision="fp32",
                requirement=RuntimeRequirement((_RUNTIMES[variant],), len(built), 4 * len(built)),
                model_file=file(name, built),
                golden_outputs=file("golden_outputs.f32", answers[:_GOLDEN].astype("<f4").tobytes()),
                golden_tolerance=1e-3,
                evaluation=Evaluation("accuracy", 1 / CLASSES, _PROFILED),
            ),
        ),
        reference=build_reference("classification", samples, answers),
        provenance=Provenance("none", "0" * 64, "none", {}, 0, {}),
    )
