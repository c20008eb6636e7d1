"""The files that conversions left, judged by us in one process: bytes, metric, and time beside fp32.

The size is divided by that of the fp32 ONNX file that every route was given. The time of one answer is
divided by that of an fp32 model on the same runtime: the given file on onnxruntime, Muster's fp32 TFLite on
LiteRT. All files of a model take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.inference import Array, ModelFile, points
from benchmarks.measure import median_calls_s
from benchmarks.models import Model
from benchmarks.peers.driver import HELD_OUT, SOURCE
from benchmarks.routes import MUSTER_FLOAT, Conversion, Route

LATENCY_ROUNDS = 200
BURST = 10
BUDGET_S = 20.0
SOURCE_KEY = ("source", "onnx-fp32")
BASELINES = {"ORT": SOURCE_KEY, "LiteRT": (MUSTER_FLOAT.name, "tflite-fp32")}
"""By runtime: route and variant that its other files are compared with."""


Key = tuple[str, str]
"""Route and variant."""


class Figures(NamedTuple):
    """What was measured of a file.

    Attributes:
        runtime: What it was run by.
        size_bytes: Of the file.
        size_ratio: To the fp32 ONNX file.
        points: See `benchmarks.inference.points`.
        points_lost: Against the fp32 ONNX file.
        latency_us: Median of one answer.
        latency_ratio: To fp32 on the same runtime; None where there is no such file.
    """

    runtime: str
    size_bytes: int
    size_ratio: float
    points: float
    points_lost: float
    latency_us: float
    latency_ratio: float | None


def judged(model: Model, folder: Path, conversions: Mapping[Route, Conversion]) -> dict[Key, Figures | str]:
    """Judge a model's files, the source first; of one that is not there say why.

    Args:
        model: Says what is measured.
        folder: The model's, see `benchmarks.models`.
        conversions: What the routes made of it.
    """
    with np.load(folder / HELD_OUT) as arrays:
        samples, labels = arrays["features"], arrays["labels"]
    loaded = dict(_loaded(folder, conversions))
    files = {key: each for key, each in loaded.items() if isinstance(each, ModelFile)}
    latencies_s = median_calls_s(
        {key: _call(file, samples[:1]) for key, file in files.items()},
        rounds=LATENCY_ROUNDS,
        burst=BURST,
        budget_s=BUDGET_S,
    )
    reached = {key: points(model.metric, f.answers(samples), samples, labels) for key, f in files.items()}

    def figures(key: Key, file: ModelFile) -> Figures:
        full_s = latencies_s.get(BASELINES[file.runtime])
        return Figures(
            runtime=file.runtime,
            size_bytes=file.size_bytes,
            size_ratio=file.size_bytes / files[SOURCE_KEY].size_bytes,
            points=reached[key],
            points_lost=reached[SOURCE_KEY] - reached[key],
            latency_us=latencies_s[key] * 1e6,
            latency_ratio=None if full_s is None else latencies_s[key] / full_s,
        )

    return {key: each if isinstance(each, str) else figures(key, each) for key, each in loaded.items()}


def _loaded(folder: Path, conversions: Mapping[Route, Conversion]) -> Iterator[tuple[Key, ModelFile | str]]:
    """Return each file, or why it is not there."""
    yield SOURCE_KEY, ModelFile(folder / SOURCE)
    for route, conversion in conversions.items():
        for name in route.variants:
            path = conversion.folder / name
            yield (route.name, path.stem), _opened(path, conversion.cold.failure)


def _opened(path: Path, failure: str) -> ModelFile | str:
    refused = path.with_suffix(".refused")
    if failure or refused.exists():
        return failure or f"refused by the converter: {refused.read_text()}"
    try:
        return ModelFile(path)
    except (RuntimeError, ValueError) as error:
        return f"does not load: {error}"


def _call(file: ModelFile, sample: Array) -> Callable[[], object]:
    wanted = file.as_wanted(sample)
    return lambda: file.answer(wanted)
