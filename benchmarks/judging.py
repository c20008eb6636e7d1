"""The files that conversions left, judged by us in one process: bytes, metric, and time beside fp32.

The size is divided by that of the fp32 ONNX file that every route was given. The time of one answer is
divided by that of an fp32 model on the same runtime: the given file on onnxruntime, Muster's fp32 TFLite on
LiteRT. All files of a model take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.inference import Array, ModelFile, points
from benchmarks.measure import median_calls_s
from benchmarks.models import Model
from benchmarks.peers.driver import HELD_OUT, SOURCE
from benchmarks.routes import MUSTER_FLOAT, Conversion, Route

LATENCY_ROUNDS = 200
BURST = 10
BUDGET_S = 20.0
BASELINES = {"ORT": ("source", "onnx-fp32"), "LiteRT": (MUSTER_FLOAT.name, "tflite-fp32")}
"""By runtime: route and variant that its other files are compared with."""


@dataclass(frozen=True)
class Judged:
    """A file, or why there is none.

    Attributes:
        route: Name of the route.
        variant: Such as ``tflite-int8``.
        runtime: What it was run by.
        size_bytes: Of the file.
        size_ratio: To the fp32 ONNX file.
        points: See `benchmarks.inference.points`.
        points_lost: Against the fp32 ONNX file.
        latency_us: Median of one answer.
        latency_ratio: To fp32 on the same runtime; None where that could not be measured.
        failure: Why nothing could be measured; then the numbers say nothing.
    """

    route: str
    variant: str
    runtime: str = ""
    size_bytes: int = 0
    size_ratio: float = 0.0
    points: float = 0.0
    points_lost: float = 0.0
    latency_us: float = 0.0
    latency_ratio: float | None = None
    failure: str = ""


_Key = tuple[str, str]
"""Route and variant."""


def judged(model: Model, folder: Path, conversions: Mapping[Route, Conversion]) -> list[Judged]:
    """Judge a model's files, the source first.

    Args:
        model: Says what is measured.
        folder: The model's, see `benchmarks.models`.
        conversions: What the routes made of it.
    """
    with np.load(folder / HELD_OUT) as arrays:
        samples, labels = arrays["features"], arrays["labels"]
    loaded = dict(_loaded(folder, conversions))
    files = {key: each for key, each in loaded.items() if isinstance(each, ModelFile)}
    reached = {
        key: points(model.metric, file.answers(samples), samples, labels) for key, file in files.items()
    }
    latencies_s = median_calls_s(
        {"/".join(key): _call(each, samples[:1]) for key, each in files.items()},
        rounds=LATENCY_ROUNDS,
        burst=BURST,
        budget_s=BUDGET_S,
    )
    source = BASELINES["ORT"]
    results = []
    for key, each in loaded.items():
        if isinstance(each, str):
            results.append(Judged(*key, failure=each))
            continue
        latency_s = latencies_s["/".join(key)]
        full_s = latencies_s.get("/".join(BASELINES[each.runtime]))
        results.append(
            Judged(
                *key,
                runtime=each.runtime,
                size_bytes=each.size_bytes,
                size_ratio=each.size_bytes / files[source].size_bytes,
                points=reached[key],
                points_lost=reached[source] - reached[key],
                latency_us=latency_s * 1e6,
                latency_ratio=None if full_s is None else latency_s / full_s,
            )
        )
    return results


def _loaded(folder: Path, conversions: Mapping[Route, Conversion]) -> Iterator[tuple[_Key, ModelFile | str]]:
    """Return each file, or why it is not there."""
    yield BASELINES["ORT"], ModelFile(folder / SOURCE)
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
