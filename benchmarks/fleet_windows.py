"""What the devices of the fleet benchmark count: a reference profile and windows, of random answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleet.drift.features import build_reference, count_block
from fleet.drift.profile import ReferenceProfile
from fleet.protocol.latency import count_durations
from fleet.protocol.records import TelemetryWindow, packed

MODEL, VARIANT = "digits", "onnx-int8"
CLASSES, PIXELS = 10, 64
SEED = 7
_REFERENCE_SAMPLES = 5000


def reference() -> ReferenceProfile:
    """Return the reference profile of both versions."""
    return build_reference("classification", *_samples(np.random.default_rng(SEED), _REFERENCE_SAMPLES))


def windows(number: int, *, version: int, digest: str, predictions: int = 20) -> list[TelemetryWindow]:
    """Return windows, packed as they travel; whoever sends one sets its times and labels.

    Args:
        number: How many.
        version: Of the model.
        digest: Of its bundle.
        predictions: In each.
    """
    rng, profile = np.random.default_rng(version), reference()
    made = []
    for _ in range(number):
        window = TelemetryWindow(
            started_at_s=0.0,
            ended_at_s=0.0,
            model=MODEL,
            version=version,
            manifest_sha256=digest,
            variant=VARIANT,
            predictions=predictions,
            latency=count_durations(rng.lognormal(5.0, 0.3, predictions)),
            profile=count_block(profile, *_samples(rng, predictions)),
        )
        body = packed(window)
        assert isinstance(body, TelemetryWindow)
        made.append(body)
    return made


def _samples(rng: np.random.Generator, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return inputs, shape (number, PIXELS), and answers, shape (number, CLASSES)."""
    logits = np.exp(2.0 * rng.normal(size=(number, CLASSES)))
    outputs = logits / logits.sum(axis=1, keepdims=True)
    return rng.random((number, PIXELS)).astype(np.float32), outputs.astype(np.float32)
