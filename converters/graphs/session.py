"""onnxruntime as every part of a conversion calls it: on one thread, without a log, its errors made ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    import onnxruntime as ort

FATAL = 4
"""Severity from which onnxruntime logs: what goes wrong is raised, and the log would say it twice."""


def session_options() -> ort.SessionOptions:
    """Return options of a session, at onnxruntime's default level of optimization."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # another split over threads would be another order of additions
    options.log_severity_level = FATAL
    return options


def open_session(model: bytes, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """Load a model, on the processor.

    Args:
        model: An ONNX file or one in the ORT format.
        options: From `session_options`; these as they are if None.
    """
    import onnxruntime as ort

    return ort.InferenceSession(
        model,
        options or session_options(),
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # to what? It would only say on standard output that it falls back
    )


def onnxruntime_cannot(do: str, error: Exception) -> ConversionFailed:
    """Return what onnxruntime raised as an error that says what it was asked for.

    Args:
        do: Such as "load the model".
        error: What it raised: its errors have no root of their own, so that `Exception` must be caught.
    """
    return ConversionFailed(f"onnxruntime cannot {do}: {str(error).rstrip('. ')}.")
