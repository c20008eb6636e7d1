"""TFLite with static int8: weights per channel, activations by the range that the calibration samples span.

That is the quantizer's only method here, whatever is chosen for ONNX; entropy and percentile are not in it.
"""

from __future__ import annotations

from converters.data.samples import evenly_spaced
from converters.graphs.calibration import MAX_SAMPLES
from converters.runtimes.tflite import LITERT
from converters.target import Target, Work
from converters.targets import tflite_fp32


def build(work: Work) -> bytes:
    """Return the graph as a quantized TFLite model with float input and output.

    Raises:
        UnsupportedOperator: A node has no counterpart in TFLite.
        ConversionFailed: There are no samples, the graph is not valid, or it cannot be quantized.
    """
    from converters.tflite.quantize import quantize_tflite_int8

    samples = evenly_spaced(work.samples(), MAX_SAMPLES)
    return quantize_tflite_int8(tflite_fp32.build(work), samples, keep_float=work.keep_float)


TARGET = Target("tflite-int8", "int8", LITERT, "model.tflite", calibrated=True, build=build)
