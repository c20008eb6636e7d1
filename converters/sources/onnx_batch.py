"""The batch of an ONNX model: its first dimension everywhere, open, and no other open.

A model must answer to any number of samples, each as if it were alone. Many files are exported for one sample
(or a fixed number) at a time. Then the batch is opened: the inputs' first dimensions become symbolic, and
where that is not enough, because a Reshape carries the number, the leading number of such shapes too. Whether
it worked is never assumed: `onnx_form` compares the answers with the file's own, sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from converters.sources.probes import MAX_PROBE_ELEMENTS
from fleet.protocol.errors import InvalidModel
from fleet.protocol.manifest import Tensor

if TYPE_CHECKING:
    import onnx

BATCH = "batch"
_NUMPY_NAMES = {
    "FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "STRING": "str", "BOOL": "bool",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
}  # fmt: skip


def dtype_name(value: onnx.ValueInfoProto) -> str:
    """Return NumPy's name of a tensor's element type, ``str`` for text; empty where NumPy has none."""
    from onnx import TensorProto

    number = value.type.tensor_type.elem_type
    return next((_NUMPY_NAMES.get(kind, "") for kind, n in TensorProto.DataType.items() if n == number), "")


def input_tensors(model: onnx.ModelProto, name: str) -> tuple[tuple[Tensor, ...], int]:
    """Return what a model takes, and how many samples at once: 0 for any number.

    Args:
        model: In the plain form.
        name: What to call it in messages.

    Raises:
        InvalidModel: An input is not a tensor, or has a shape that is open beyond the batch.
    """
    if not model.graph.input:
        raise InvalidModel(f"{name} takes no inputs.", remedy="Export the model, not only its weights.")
    tensors, batches = [], set()
    for value in model.graph.input:
        shape, batch = _input_shape(value, name)
        dtype = dtype_name(value)
        if not dtype:
            raise InvalidModel(f"{name}: input {value.name!r:.80} has an element type that NumPy has not.")
        tensors.append(Tensor(value.name, dtype, shape))
        batches.add(batch)
    fixed = batches - {0}
    if len(fixed) > 1:
        raise InvalidModel(
            f"{name}: the inputs' first dimensions are fixed to different sizes ({sorted(fixed)}), so"
            " they are no batch.",
            remedy="Export the model with the batch as the first dimension of every input.",
        )
    return tuple(tensors), max(batches)


def open_batch(model: onnx.ModelProto, *, reshapes: bool, batch: int) -> onnx.ModelProto:
    """Return a copy whose inputs take any number of samples.

    Args:
        model: In the plain form.
        reshapes: Whether to free the batch in the shapes of Reshape nodes too.
        batch: The fixed number of samples in those shapes.
    """
    from onnx import ModelProto

    opened = ModelProto()
    opened.CopyFrom(model)
    for value in opened.graph.input:
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        dimension.dim_param = BATCH
    for value in opened.graph.output:
        value.type.tensor_type.ClearField("shape")  # stated for the old batch; found anew
    opened.graph.ClearField("value_info")
    if reshapes:
        _free_reshapes(opened.graph, batch)
    return opened


def state_outputs(model: onnx.ModelProto, tensors: Sequence[Tensor]) -> None:
    """Write the outputs' shapes, as they were found, into a model."""
    for value, tensor in zip(model.graph.output, tensors, strict=True):
        shape = value.type.tensor_type.shape
        shape.Clear()
        shape.SetInParent()
        for size in tensor.shape:
            dimension = shape.dim.add()
            if size == -1:
                dimension.dim_param = BATCH
            else:
                dimension.dim_value = size


def _input_shape(value: onnx.ValueInfoProto, name: str) -> tuple[tuple[int, ...], int]:
    """Return the shape with -1 for the batch, and the batch: 0 where it is open."""
    if not value.type.HasField("tensor_type"):
        raise InvalidModel(
            f"{name}: input {value.name!r:.80} is a sequence, map or optional value, not a tensor.",
            remedy="Export the model with tensors as inputs.",
        )
    if not value.type.tensor_type.HasField("shape"):
        raise InvalidModel(
            f"{name}: input {value.name!r:.80} has no shape.",
            remedy="Export it with one, or write one with onnx.tools.update_model_dims.",
        )
    dims = value.type.tensor_type.shape.dim
    if not dims:
        raise InvalidModel(
            f"{name}: input {value.name!r:.80} is a single number without a dimension for the batch.",
            remedy="Make it a constant of the graph (an initializer).",
        )
    for axis, dim in enumerate(dims[1:], start=1):
        if dim.dim_value < 1:
            symbol = f" ({dim.dim_param:.80})" if dim.dim_param else ""
            fix = f"--dim_param {dim.dim_param:.80} --dim_value SIZE"
            if not symbol:
                fix = f"--input_name {value.name:.80} --input_shape 1,…"
            raise InvalidModel(
                f"{name}: dimension {axis} of input {value.name!r:.80} is open{symbol}; only the first one,"
                " the batch, may be.",
                remedy=f"Fix it: python -m onnxruntime.tools.make_dynamic_shape_fixed {fix} MODEL NEW_MODEL",
            )
    sizes = tuple(int(dim.dim_value) for dim in dims[1:])
    batch = max(int(dims[0].dim_value), 0)
    if max(batch, 1) * int(np.prod(sizes, dtype=object)) > MAX_PROBE_ELEMENTS:
        raise InvalidModel(
            f"{name}: input {value.name!r:.80} of shape {(batch or -1, *sizes)} has more elements than the"
            f" {MAX_PROBE_ELEMENTS} that are allowed."
        )
    return (-1, *sizes), batch


def _free_reshapes(graph: onnx.GraphProto, batch: int) -> None:
    """Let Reshape nodes that depend on an input take any batch where their constant shape begins with one."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    computed = {value.name for value in graph.input}
    for node in graph.node:
        if not computed.intersection(node.input):
            continue
        computed.update(node.output)
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if shape.ndim != 1 or not len(shape) or shape[0] != batch:
            continue
        shape[0] = 0 if -1 in shape else -1  # 0 keeps the size that comes in, -1 takes what is left
        freed = numpy_helper.from_array(shape, f"{node.name}.shape.{BATCH}")
        graph.initializer.append(freed)
        node.input[1] = freed.name
