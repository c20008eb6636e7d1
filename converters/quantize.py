"""From an fp32 ONNX model to static int8, written as quantize-dequantize pairs (QDQ).

What is quantized: the matrix products, that is nearly all weights and nearly all work. Activations get one
scale for each tensor, from the least and greatest value over the calibration samples; weights get one for
each output channel. What stays float: the scaler (its features span orders of magnitude, and one scale for
all of them took accuracy from 0.96 to 0.67), biases and softmax, which are small.

Weights use 7 of their 8 bits (``reduce_range``). x86 processors without VNNI multiply with ``VPMADDUBSW``,
which adds two products of an unsigned and a signed byte in 16 bits: 2 · 255 · 127 does not fit and saturates
silently, 2 · 255 · 64 fits. So integer arithmetic is exact on every processor: all give the same answers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.graph import INPUT
from fleet.protocol.errors import ConversionFailed

MAX_CALIBRATION_SAMPLES = 512
QUANTIZED_OPERATORS = ["MatMul", "Gemm"]


def quantize_int8(model: bytes, calibration: NDArray[np.float32]) -> bytes:
    """Return the model with int8 weights and activations; the same inputs give the same bytes.

    Args:
        model: An fp32 model as `converters.graph.tidy` makes it.
        calibration: Samples that training may have seen, shape (N, …); `MAX_CALIBRATION_SAMPLES` of them,
            evenly spaced, are used.

    Raises:
        ConversionFailed: The model has no matrix product, or onnxruntime cannot quantize it.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quant_pre_process, quantize_static

    try:
        operators = {node.op_type for node in onnx.load_from_string(model).graph.node}
    except Exception as error:  # protobuf's errors have no stable home to import them from
        raise ConversionFailed("The model to quantize is not ONNX.") from error
    if operators.isdisjoint(QUANTIZED_OPERATORS):
        raise ConversionFailed("The model has no matrix product with weights, so int8 would change nothing.")
    with tempfile.TemporaryDirectory(prefix="muster-quantize-") as name:
        source, inferred, target = (Path(name) / f"{step}.onnx" for step in ("fp32", "inferred", "int8"))
        source.write_bytes(model)
        try:
            # Shapes alone are inferred: optimizing here would fuse nodes for this machine's runtime.
            quant_pre_process(source, inferred, skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                inferred,
                target,
                _calibration_reader(_evenly_spaced(calibration)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED_OPERATORS,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # What follows a product is a float addition; quantizing in between only loses precision.
                extra_options={"OpTypesToExcludeOutputQuantization": QUANTIZED_OPERATORS},
            )
        except Exception as error:  # onnxruntime's errors have no root of their own
            raise ConversionFailed(f"The model cannot be quantized: {error}.") from error
        return target.read_bytes()


def _evenly_spaced(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    count = min(len(samples), MAX_CALIBRATION_SAMPLES)
    return samples[np.linspace(0, len(samples) - 1, count).astype(np.intp)]


def _calibration_reader(samples: NDArray[np.float32]) -> Any:
    """Return a reader that gives all samples in one batch."""
    from onnxruntime.quantization import CalibrationDataReader

    class _OneBatch(CalibrationDataReader):  # type: ignore[misc]  # the base class has no types
        def __init__(self) -> None:
            self._batches = iter([{INPUT: samples}])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._batches, None)

    return _OneBatch()
