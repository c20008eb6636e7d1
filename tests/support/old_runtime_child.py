"""What tflite-runtime says; runs in that runtime's own environment, with nothing of ours.

``answer FOLDER``: answer the batch in ``input.npy`` with ``model.tflite``, into ``output.npy``.
``load FOLDER``: try to load each ``*.tflite``; print the names of those that load.
"""

import sys
from pathlib import Path

import numpy as np
from tflite_runtime.interpreter import Interpreter


def answer(folder: Path) -> None:
    """Answer one batch."""
    values = np.load(folder / "input.npy")
    interpreter = Interpreter(str(folder / "model.tflite"))
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], values.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], values)
    interpreter.invoke()
    np.save(folder / "output.npy", interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def load(folder: Path) -> None:
    """Try to load files."""
    for path in sorted(folder.glob("*.tflite")):
        try:
            Interpreter(str(path))
        except ValueError:
            continue
        sys.stdout.write(f"{path.stem}\n")


{"answer": answer, "load": load}[sys.argv[1]](Path(sys.argv[2]))
