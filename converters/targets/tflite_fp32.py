"""TFLite with fp32 weights, written without TensorFlow."""

from __future__ import annotations

from converters.graphs.onnx_graph import parsed
from converters.runtimes.tflite import LITERT
from converters.target import Target, Work


def build(work: Work) -> bytes:
    """Return the graph as a TFLite model.

    Raises:
        UnsupportedOperator: A node has no counterpart in TFLite.
        ConversionFailed: The graph is not valid.
    """
    from converters.tflite.emit import emit_tflite

    return emit_tflite(parsed(work.onnx))


TARGET = Target("tflite-fp32", "fp32", LITERT, "model.tflite", calibrated=False, build=build)
