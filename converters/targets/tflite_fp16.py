"""TFLite with fp16 weights: half the bytes; a runtime computes in fp32 unless a delegate does otherwise."""

from __future__ import annotations

from converters.runtimes.tflite import LITERT
from converters.target import Target, Work
from converters.targets import tflite_fp32


def build(work: Work) -> bytes:
    """Return the graph as a TFLite model whose weights are stored in fp16.

    Raises:
        UnsupportedOperator: A node has no counterpart in TFLite.
        ConversionFailed: The graph is not valid, or a weight does not fit into fp16.
    """
    from converters.tflite.quantize import weights_to_fp16

    return weights_to_fp16(tflite_fp32.build(work))


TARGET = Target("tflite-fp16", "fp16", LITERT, "model.tflite", calibrated=False, build=build)
