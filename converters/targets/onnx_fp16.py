"""``onnx-fp16``: weights and arithmetic in float16, inputs and outputs in float32.

Overflow shows nowhere: onnxruntime computes float16 in float32 on processors without float16 kernels, so that
a value beyond 65,504 is right here and infinite on the device. So the constants are checked, and with
calibration samples the values of every tensor that becomes float16.
"""

from __future__ import annotations

import numpy as np

from converters.data.samples import Inputs, evenly_spaced
from converters.graphs.activations import ranges
from converters.graphs.calibration import MAX_SAMPLES
from converters.graphs.float16 import GREATEST_FLOAT16, Half, halves, make_float16
from converters.graphs.naming import name_nodes
from converters.graphs.onnx_graph import parsed, producers
from converters.graphs.rewrite import drop_unused_constants, fold_normalization, store_constants
from converters.runtimes.onnx import ONNXRUNTIME
from converters.target import Target, Work
from fleet.protocol.errors import ConversionFailed


def build(work: Work) -> bytes:
    """Return the graph in float16.

    Raises:
        ConversionFailed: A value is greater than float16 can hold, or the model has no weights to convert.
    """
    model = parsed(work.onnx)
    name_nodes(model)
    store_constants(model)
    fold_normalization(model)
    chosen = halves(model)
    if not chosen:
        raise ConversionFailed(
            "Only products with constant weights and what follows them become float16, and the model has"
            " none: fp16 would change nothing.",
            remedy="Pack the model as fp32.",
        )
    fp32 = model.SerializeToString()
    make_float16(model, chosen)
    if work.calibration is not None:
        _check_values(fp32, chosen, evenly_spaced(work.calibration, MAX_SAMPLES))
    drop_unused_constants(model)
    return bytes(model.SerializeToString(deterministic=True))


def _check_values(model: bytes, chosen: dict[str, Half], samples: Inputs) -> None:
    """Let a graph pass whose tensors, as far as they become float16, stay within it on the samples.

    Raises:
        ConversionFailed: One does not; the message names its node.
    """
    graph = parsed(model).graph
    found = ranges(model, samples)
    made_by = producers(graph)
    for node in graph.node:
        half = chosen.get(node.name, Half(frozenset(), frozenset()))
        for name in [*(node.input[i] for i in half.inputs), *(node.output[i] for i in half.outputs)]:
            if name not in found:  # a constant
                continue
            greatest = max(-found[name].minimum, found[name].maximum)
            if not np.isfinite(greatest) or greatest > GREATEST_FLOAT16:
                maker = made_by.get(name, node)
                raise ConversionFailed(
                    f"Node {maker.name!r} ({maker.op_type}) has values up to {greatest:.6g} on the"
                    f" calibration samples; float16 ends at {GREATEST_FLOAT16:.0f}.",
                    remedy="Scale the inputs or the layer's weights down, or pack the model as fp32.",
                )


TARGET = Target("onnx-fp16", "fp16", ONNXRUNTIME, "model.onnx", calibrated=False, build=build)
