"""Plain `onnxruntime.quantization` with its defaults, after the pre-processing that its pages advise.

``what`` is ``static`` (calibrated, quantize-dequantize pairs) or ``dynamic`` (activations at run time).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.driver import CALIBRATION, SOURCE, drive


def convert(folder: Path, out: Path, what: str) -> None:
    """Quantize in the way ``what``."""
    from onnxruntime.quantization import quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out / "prepared.onnx.tmp"
    quant_pre_process(str(folder / SOURCE), str(prepared), skip_symbolic_shape=True)
    if what == "static":
        with np.load(folder / CALIBRATION) as arrays:
            samples = arrays["features"]
        quantize_static(str(prepared), str(out / "onnx-int8.onnx"), _reader(samples))
    else:
        quantize_dynamic(str(prepared), str(out / "onnx-int8.onnx"))


def _reader(samples: NDArray[np.float32]) -> Any:
    """Return the samples one by one, as the calibrator asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc] # the library has no types
        def __init__(self) -> None:
            self._samples: Iterator[NDArray[np.float32]] = iter(samples)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            sample = next(self._samples, None)
            return None if sample is None else {"input": sample[None]}

    return Reader()


if __name__ == "__main__":
    drive(convert)
