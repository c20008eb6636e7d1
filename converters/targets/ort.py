"""``ort-fp32``: the graph in onnxruntime's own format, optimized in advance and loaded without parsing.

It is saved at the EXTENDED level of optimization. The next level, ALL, also lays out convolutions for the
processor that it is saved on (operators of the domain ``com.microsoft.nchwc``), and such a file runs on no
other kind: whatever onnxruntime does, a file with operators outside of `PORTABLE_DOMAINS` is refused.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from converters.graphs.ort_format import canonical, ort_operators
from converters.graphs.session import onnxruntime_cannot, open_session, session_options
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import Target, Work
from fleet.protocol.errors import ConversionFailed

PORTABLE_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def build(work: Work) -> bytes:
    """Return the graph in the ORT format.

    Raises:
        ConversionFailed: onnxruntime cannot load or save it, or only for processors like the one here.
    """
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="muster-ort-") as folder:
        path = Path(folder) / "model.ort"
        options = session_options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            open_session(work.onnx, options)
            saved = path.read_bytes()
        except Exception as error:
            raise onnxruntime_cannot("save the graph in its format", error) from error
    data = canonical(saved)
    check_portable(data)
    return data


def check_portable(model: bytes) -> None:
    """Let a model in the ORT format pass that runs on every processor.

    Raises:
        ConversionFailed: It has operators that were made for one kind of processor.
    """
    used = ort_operators(model)
    bound = sorted(f"{domain}.{name}" for domain, name in used if domain not in PORTABLE_DOMAINS)
    if bound:
        raise ConversionFailed(
            f"The model has operators for the processor that it was saved on: {', '.join(bound)}.",
            remedy="Save it at the EXTENDED level of optimization, not ALL.",
        )


TARGET = Target("ort-fp32", "fp32", ONNXRUNTIME, "model.ort", calibrated=False, build=build)
