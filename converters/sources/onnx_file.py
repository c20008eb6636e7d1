"""Existing ``.onnx`` files, whatever wrote them.

A file goes through these steps; each but the last is a module beside this one:

================  =======================================================================================
`onnx_reading`    bytes become a model with its weights; nothing outside its folder is touched
`onnx_checks`     functions inlined, foreign and random operators refused, ``onnx.checker``
`onnx_outputs`    the judged output first, labels and ZipMap dropped
`onnx_form`       any number of samples, operator set `OPSET` to 21, lowest IR version
here              task, precision, the `Source`
================  =======================================================================================

What remains for a person to know: loading a model means running it, and a graph may take any time and memory
to run. It can do no more than that: it has no operator that reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.graphs.versions import (
    NEWEST_OPSET_EVERYWHERE,
    all_graphs,
    all_tensors,
    lowest_ir_version,
    opset_of,
)
from converters.source import Precision, Source
from converters.sources.onnx_checks import plain_model
from converters.sources.onnx_form import Original, brought_into_form, run_original
from converters.sources.onnx_outputs import choose_outputs
from converters.sources.onnx_reading import MAX_MODEL_SIZE_BYTES, read_onnx
from converters.sources.tasks import judged_signature
from fleet.protocol.errors import InvalidModel
from fleet.protocol.manifest import Task

if TYPE_CHECKING:
    import onnx

_INT8 = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QGemm",
    "QLinearConv", "QLinearMatMul", "QAttention", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
    "MatMulIntegerToFloat",
})  # fmt: skip
_INT4 = frozenset({"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"})


def open_onnx(
    path: Path, *, name: str = "", classes: tuple[str, ...] = (), task: Task | None = None
) -> Source:
    """Read an ``.onnx`` file.

    Args:
        path: The file; tensors in other files must be inside its folder.
        name: What to call it; the file's name if empty.
        classes: Names of the classes, in the order of the output's columns; those in the graph if empty.
        task: What the model is for; guessed, with a caution, if None.

    Raises:
        NotFound: There is no such file.
        InvalidModel: It is not an ONNX model that can be used; the message says why, and the way out.
        ConversionFailed: It cannot be brought to an operator set that devices run.
        UnsupportedOperator: A node is one that devices cannot run.
    """
    name = name or path.name
    model, sha256 = read_onnx(path)
    return source_of_model(model, name=name, classes=classes, task=task, sha256=sha256)


def source_of_model(
    model: onnx.ModelProto,
    *,
    name: str,
    framework: str = "ONNX",
    classes: tuple[str, ...] = (),
    task: Task | None = None,
    sha256: str = "",
    answer: Callable[[Inputs], NDArray[Any]] | None = None,
    libraries: tuple[str, ...] = ("onnx", "onnxruntime"),
) -> Source:
    """Return the source of an ONNX model in memory, checked and brought into form as a file's would be.

    Args:
        model: With all weights in it.
        name: What to call it.
        framework: What it was trained with or stored as.
        classes: As for `open_onnx`.
        task: As for `open_onnx`.
        sha256: Digest of its file.
        answer: What the original answers; None where the model itself is the original.
        libraries: Distributions that took part.

    Raises:
        InvalidModel: It cannot be used.
        ConversionFailed: It cannot be brought to an operator set that devices run.
        UnsupportedOperator: A node is one that devices cannot run.
    """
    plain = plain_model(model, name)
    chosen = choose_outputs(plain, name)
    plain.ir_version = lowest_ir_version(plain)
    precision = precision_of(plain)
    original = run_original(plain, name)
    formed = brought_into_form(original, precision)
    data = formed.model.SerializeToString(deterministic=True)
    if len(data) > MAX_MODEL_SIZE_BYTES:
        raise InvalidModel(f"{name} has {len(data)} bytes; {MAX_MODEL_SIZE_BYTES} are allowed.")
    judged = judged_signature(
        name,
        original.inputs,
        formed.outputs,
        original.answers[0],
        task=task,
        classes=classes,
        stated_classes=chosen.classes,
    )
    return Source(
        name=name,
        framework=framework,
        signature=judged.signature,
        answer=answer or original.answer,
        onnx=data,
        precision=precision,
        sha256=sha256,
        cautions=(*chosen.cautions, *_cautions(original, formed.model), *judged.cautions),
        libraries=libraries,
    )


def precision_of(model: onnx.ModelProto) -> Precision:
    """Return the precision of a model's weights, by the operators that only quantized graphs have."""
    from onnx import TensorProto

    operators = {node.op_type for graph in all_graphs(model.graph) for node in graph.node}
    size_bytes: dict[int, int] = {}
    for tensor in all_tensors(model):
        size_bytes[tensor.data_type] = size_bytes.get(tensor.data_type, 0) + tensor.ByteSize()
    if operators & _INT4 or {TensorProto.INT4, TensorProto.UINT4} & size_bytes.keys():
        return "int4"
    if operators & _INT8:
        return "int8"
    half = size_bytes.get(TensorProto.FLOAT16, 0) + size_bytes.get(TensorProto.BFLOAT16, 0)
    return "fp16" if half > size_bytes.get(TensorProto.FLOAT, 0) else "fp32"


def _cautions(original: Original, model: onnx.ModelProto) -> list[str]:
    """Say what was changed, and what devices must have."""
    cautions = []
    before, after = opset_of(original.model), opset_of(model)
    if before != after:
        cautions.append(
            f"Its operator set {before} was converted to {after}, with the same answers to probes."
        )
    if after > NEWEST_OPSET_EVERYWHERE:
        cautions.append(f"It needs operator set {after}, which only newer devices run.")
    if original.batch:
        cautions.append(
            f"It was exported for batches of {original.batch}; now it takes any number of samples, with the"
            " same answers to probes."
        )
    return cautions
