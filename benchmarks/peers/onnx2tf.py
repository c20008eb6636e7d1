"""onnx2tf as its documentation has it: integer quantization, calibrated, with the input's shape made static.

``what`` is its backend: ``flatbuffer_direct`` (its default, without TensorFlow) or ``tf_converter``. It
writes float, half and several integer variants in one go; there is no way to ask for one alone. Of the
integer ones that with float input and output is taken, as ours has them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.peers.driver import CALIBRATION, SOURCE, drive

_VARIANTS = {"tflite-fp32": "model_float32.tflite", "tflite-int8": "model_integer_quant.tflite"}


def convert(folder: Path, out: Path, what: str) -> None:
    """Convert by the backend ``what``."""
    import onnx2tf

    with np.load(folder / CALIBRATION) as arrays:
        samples = arrays["features"]
    shape = ",".join(str(size) for size in (1, *samples.shape[1:]))
    if samples.ndim == 4:
        samples = samples.transpose(0, 2, 3, 1)  # it calibrates with channels last
    np.save(out / "calibration.npy", np.ascontiguousarray(samples))
    one = (1,) * samples.ndim
    mean, deviation = np.zeros(one).tolist(), np.ones(one).tolist()  # samples are scaled already
    onnx2tf.convert(
        input_onnx_file_path=str(folder / SOURCE),
        output_folder_path=str(out / "onnx2tf"),
        tflite_backend=what,
        output_integer_quantized_tflite=True,
        overwrite_input_shape=[f"input:{shape}"],
        custom_input_op_name_np_data_path=[["input", str(out / "calibration.npy"), mean, deviation]],
        non_verbose=True,
    )
    for variant, name in _VARIANTS.items():
        (out / f"{variant}.tflite").write_bytes((out / "onnx2tf" / name).read_bytes())


if __name__ == "__main__":
    drive(convert)
