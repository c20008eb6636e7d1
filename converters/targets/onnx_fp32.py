"""``onnx-fp32``: the graph as it was exported."""

from __future__ import annotations

from converters.graphs.onnx_graph import parsed
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import Target, Work
from fleet.protocol.errors import ConversionFailed


def build(work: Work) -> bytes:
    """Return the graph's bytes, which are checked to be valid ONNX.

    Raises:
        ConversionFailed: They are not.
    """
    from onnx import checker

    try:
        checker.check_model(parsed(work.onnx), full_check=True)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        raise ConversionFailed(f"The graph is not valid ONNX: {str(error).rstrip('. ')}.") from error
    return work.onnx


TARGET = Target("onnx-fp32", "fp32", ONNXRUNTIME, "model.onnx", calibrated=False, build=build)
