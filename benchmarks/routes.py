"""The routes from an ONNX file to int8 that are compared, and the running of them.

Each conversion is a process of its own. A *cold* one is what a person waits for: it starts Python, imports
the libraries, converts once and ends. A *warm* one is the conversion alone, in a process that has converted
before. Routes take turns, so that whatever else the machine does falls on all alike; the median counts.

Muster's conversion includes judging: it runs source and variants on the held-out samples, compares and times
them. Its peers write files and stop there. onnx2tf writes six or seven variants at once and cannot write
fewer; Muster's route to three of them stands beside the one to int8 alone for that reason.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import ROOT, Run, median_run, run_program
from benchmarks.models import Model

ENVIRONMENTS = ROOT / ".venv" / "peers"
TIMEOUT_S = 900.0
BUDGET_S = 60.0
"""After so long a route gets no further cold process."""

WARM_REPEATS = 4
"""The first of them loads the libraries and does not count."""


@dataclass(frozen=True)
class Route:
    """One way from an ONNX file to quantized ones.

    Attributes:
        name: In the tables.
        environment: Folder of its environment in `ENVIRONMENTS`; ``requirements/peers-NAME.txt`` fills it.
        program: Module of `benchmarks.peers`.
        what: The program's last argument.
        variants: The files to judge: names and endings.
    """

    name: str
    environment: str
    program: str
    what: str
    variants: tuple[str, ...]

    @property
    def python(self) -> Path:
        """The interpreter that has what the route needs."""
        return ENVIRONMENTS / self.environment / "bin" / "python"


OURS = "converters-muster"
_ORT = "converters-onnxruntime"
_ONNX = ("onnx-int8.onnx",)
_TFLITE = ("tflite-fp32.tflite", "tflite-int8.tflite")
MUSTER_TFLITE = Route("muster", OURS, "muster", "tflite-int8", ("tflite-int8.tflite",))
MUSTER_FLOAT = Route(
    "muster, 3 variants", OURS, "muster", "tflite-fp32,tflite-fp16,tflite-int8", ("tflite-fp32.tflite",)
)
MUSTER_ONNX = Route("muster, ONNX", OURS, "muster", "onnx-int8", _ONNX)
ONNX2TF = Route("onnx2tf", "converters", "onnx2tf", "flatbuffer_direct", _TFLITE)
ONNX2TF_TENSORFLOW = Route("onnx2tf-tensorflow", "converters-tensorflow", "onnx2tf", "tf_converter", _TFLITE)
STATIC = Route("onnxruntime static", _ORT, "onnxruntime", "static", _ONNX)
DYNAMIC = Route("onnxruntime dynamic", _ORT, "onnxruntime", "dynamic", _ONNX)

ROUTES = (MUSTER_TFLITE, MUSTER_FLOAT, MUSTER_ONNX, ONNX2TF, ONNX2TF_TENSORFLOW, STATIC, DYNAMIC)


class Conversion(NamedTuple):
    """What a route did with a model.

    Attributes:
        folder: Where its files are.
        cold: The whole process, medians.
        warm_s: The conversion alone, the median.
    """

    folder: Path
    cold: Run
    warm_s: float


def converted(model: Model, routes: Iterable[Route], folder: Path, *, rounds: int) -> dict[Route, Conversion]:
    """Convert a model by all routes.

    The warm process comes first, so that the cold ones find compiled bytecode and files in the page cache.

    Args:
        model: What to convert.
        routes: By which to go.
        folder: The model's, see `benchmarks.models`; the routes' files go into folders in it.
        rounds: How many cold processes each route gets, within its budget.
    """
    warm: dict[Route, tuple[Path, Run]] = {}
    for route in routes:
        sys.stderr.write(f"  {model.name}: {route.name}\n")
        out = folder / route.name
        warm[route] = out, _run(route, folder, out, WARM_REPEATS)
    cold: dict[Route, list[Run]] = {route: [] for route in warm}
    for number in range(rounds):
        for route, (out, first) in warm.items():
            if sum(run.wall_s for run in cold[route]) < BUDGET_S:
                again = first if first.failure else _run(route, folder, out / f"cold-{number}", 1)
                cold[route].append(again)
    return {
        route: Conversion(out, median_run(cold[route]), _warm_s(out, first))
        for route, (out, first) in warm.items()
    }


def _run(route: Route, folder: Path, out: Path, repeats: int) -> Run:
    out.mkdir(parents=True)
    if not route.python.exists():
        return Run(0.0, 0, f"{route.environment} could not be installed")
    command: Sequence[str] = [
        *(str(route.python), "-m", f"benchmarks.peers.{route.program}"),
        *(str(folder), str(out), str(repeats), route.what),
    ]
    return run_program(command, out / "log.txt", timeout_s=TIMEOUT_S)


def _warm_s(out: Path, run: Run) -> float:
    if run.failure:
        return 0.0
    seconds: list[float] = json.loads((out / "seconds.json").read_text())
    return statistics.median(seconds[1:])
