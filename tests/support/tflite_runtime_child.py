"""Answer one batch with tflite-runtime; runs in that runtime's own environment, with nothing of ours."""

import sys
from pathlib import Path

import numpy as np
from tflite_runtime.interpreter import Interpreter

folder = Path(sys.argv[1])
values = np.load(folder / "input.npy")
interpreter = Interpreter(str(folder / "model.tflite"))
(given,) = interpreter.get_input_details()
interpreter.resize_tensor_input(given["index"], values.shape)
interpreter.allocate_tensors()
interpreter.set_tensor(given["index"], values)
interpreter.invoke()
np.save(folder / "output.npy", interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
