"""``tflite-runtime`` 2.14, the runtime of older devices, in the environment that ``make test`` makes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.needed import leave_out

PYTHON = Path(__file__).parents[2] / ".venv" / "tflite-runtime" / "bin" / "python"
CHILD = Path(__file__).with_name("old_runtime_child.py")
TFLITE_RUNTIME_IS_MISSING = (
    "tflite-runtime is missing, and these tests need it. On Python 3.11, for which alone it has a build,"
    " `make test` installs it."
)


def answers_of_tflite_runtime(folder: Path, model: bytes, values: NDArray[Any]) -> NDArray[Any]:
    """Return what tflite-runtime answers: the first output for the only input.

    Args:
        folder: For the files that pass between the processes.
        model: The bytes of a ``.tflite`` file.
        values: The input, shape (N, …).
    """
    (folder / "model.tflite").write_bytes(model)
    np.save(folder / "input.npy", values)
    _run("answer", folder)
    answers: NDArray[Any] = np.load(folder / "output.npy")
    return answers


def loaded_by_tflite_runtime(folder: Path, models: dict[str, bytes]) -> set[str]:
    """Return the names of the models that tflite-runtime loads.

    Args:
        folder: For the files that pass between the processes.
        models: The bytes of ``.tflite`` files, by name.
    """
    for name, model in models.items():
        (folder / f"{name}.tflite").write_bytes(model)
    return set(_run("load", folder).split())


def _run(command: str, folder: Path) -> str:
    if not PYTHON.exists() or subprocess.run([PYTHON, "-c", "import tflite_runtime"], check=False).returncode:
        leave_out(TFLITE_RUNTIME_IS_MISSING)
    done = subprocess.run(
        [PYTHON, CHILD, command, folder], check=True, capture_output=True, text=True, timeout=100
    )
    return done.stdout
