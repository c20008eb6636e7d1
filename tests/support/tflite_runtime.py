"""``tflite-runtime`` 2.14, the runtime of older devices, in the environment that ``make test`` makes for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

PYTHON = Path(__file__).parents[2] / ".venv" / "tflite-runtime" / "bin" / "python"
CHILD = Path(__file__).with_name("tflite_runtime_child.py")
TFLITE_RUNTIME_IS_MISSING = (
    "tflite-runtime is not installed; `make test` installs it on Python 3.11, for which alone it has a build."
)


def answers_of_tflite_runtime(folder: Path, model: bytes, values: NDArray[Any]) -> NDArray[Any]:
    """Return what tflite-runtime answers: the first output for the only input.

    Args:
        folder: For the files that pass between the processes.
        model: The bytes of a ``.tflite`` file.
        values: The input, shape (N, …).
    """
    if subprocess.run([PYTHON, "-c", "import tflite_runtime"], check=False).returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(TFLITE_RUNTIME_IS_MISSING)
        pytest.skip(TFLITE_RUNTIME_IS_MISSING)
    (folder / "model.tflite").write_bytes(model)
    np.save(folder / "input.npy", values)
    subprocess.run([PYTHON, CHILD, folder], check=True, capture_output=True, timeout=60)
    answers: NDArray[Any] = np.load(folder / "output.npy")
    return answers
