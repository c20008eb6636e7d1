"""A device with one model, as an installation leaves it: its state folder, written by the agent's own code.

The device has enrolled, and its broker does not answer: it serves what is installed, as devices offline do.
No hub takes processor time while it is measured.
"""

from __future__ import annotations

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
from benchmarks.bundles import Build, Golden, Packed, packed
from benchmarks.serving.models import CLASSES, INPUT, OUTPUT, Model
from fleet.drift.features import build_reference
from fleet.protocol.enrolment import BrokerAccess
from fleet.protocol.manifest import Signature, Tensor, encode_manifest, manifest_sha256
from fleet.protocol.requirement import RuntimeVersion

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
    made = _packed(model, variant, built)
    for sha256, blob in made.blobs.items():
        blobs.path(sha256).write_bytes(blob)
    data = encode_manifest(made.manifest)
    release = Release(VERSION, manifest_sha256(data), variant)
    slots = Slots(state / "models", blobs)
    slots.stage(model.name, release, data)
    slots.install(model.name, release)
    life = Life(Phase.COMMITTED, "benchmark", active=release, ordered=release)
    LifeStore(state / "life").save(model.name, Stored(life))
    write_settings(state, settings)
    write_identity(state, Identity("device", "http://127.0.0.1:1", _NOBODY, b"{}"))


def _packed(model: Model, variant: str, built: bytes) -> Packed:
    session = onnxruntime.InferenceSession(model.onnx(), providers=["CPUExecutionProvider"])
    samples = model.samples(_PROFILED)
    answers = np.asarray(session.run([OUTPUT], {INPUT: samples})[0])
    name = "model.onnx" if variant == ONNX else "model.tflite"
    return packed(
        model.name,
        VERSION,
        Signature(
            inputs=(Tensor(INPUT, "float32", (-1, *model.shape)),),
            outputs=(Tensor(OUTPUT, "float32", (-1, CLASSES)),),
            task="classification",
        ),
        Golden(
            [samples[:_GOLDEN].tobytes()],
            answers[:_GOLDEN].astype("<f4").tobytes(),
            _GOLDEN,
            tolerance=1e-3,
        ),
        build_reference("classification", samples, answers),
        Build(variant, name, built, (_RUNTIMES[variant],), 4 * len(built)),
    )
