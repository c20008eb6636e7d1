"""Runs one converter on one model, for `benchmarks.converters`, in the environment of that converter.

::

    python -m benchmarks.peers.NAME MODEL_FOLDER OUT REPEATS [WHAT]

It converts ``MODEL_FOLDER/model.onnx`` so often, or twice if that takes long, and leaves in ``OUT`` what came
of it last::

    VARIANT.onnx, VARIANT.tflite     the models, named as Muster names variants: ``tflite-int8.tflite``
    VARIANT.refused                  in place of a model: why the converter itself holds it to be unsound
    seconds.json                     what each conversion took; the first loads the libraries
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

CALIBRATION = "calibration.npz"
HELD_OUT = "held_out.npz"
SOURCE = "model.onnx"

BUDGET_S = 20.0
"""After so long there is no third conversion."""

Convert = Callable[[Path, Path, str], None]
"""Takes the model's folder, the folder to write to and the last argument."""


def drive(convert: Convert) -> None:
    """Convert as the command line says."""
    folder, out, repeats, what = [*sys.argv[1:], ""][:4]
    seconds: list[float] = []
    for done in range(int(repeats)):
        if done >= 2 and sum(seconds) > BUDGET_S:
            break
        before_s = time.perf_counter()
        convert(Path(folder), Path(out), what)
        seconds.append(time.perf_counter() - before_s)
    (Path(out) / "seconds.json").write_text(json.dumps(seconds))
