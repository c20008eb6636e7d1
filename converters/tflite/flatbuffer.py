"""Write a TFLite file: a flatbuffer by the schema that ships with the runtime.

One subgraph, one signature (`SIGNATURE`) by whose names callers address inputs and outputs, and one buffer
for each constant, aligned to 16 bytes within the file as the schema demands (``force_align``), which the
generated Python code does not do. The same graph gives the same bytes.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import msgspec
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Graph, Operator, Tensor, at_batch_one, signature
from converters.tflite.inspect import IDENTIFIER, MAX_SIZE_BYTES, SCHEMA_VERSION
from converters.tflite.versions import operator_version
from fleet.protocol.errors import ConversionFailed

SIGNATURE = "serving_default"
DESCRIPTION = "Written by Muster."
LAYERS = "muster.layers"
"""Metadata of a float file: JSON, for each operator the tensor that it writes and the nodes that it is."""
MAX_LEGACY_CODE = 127
"""Codes up to this one are also written into the byte that runtimes before 2.4 read."""
ALIGNMENT_BYTES = 16

TYPES: dict[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}
"""The element types that are emitted, by NumPy's names."""


class _Buffer(schema.BufferT):  # type: ignore[misc]  # the schema has no types
    """A buffer whose contents lie at a multiple of `ALIGNMENT_BYTES`."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the schema's name
        data = b"" if self.data is None else bytes(self.data)
        vector = None
        if data:
            builder.StartVector(1, len(data), ALIGNMENT_BYTES)
            builder.head = builder.Head() - len(data)
            builder.Bytes[builder.Head() : builder.Head() + len(data)] = data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers has no types
    """A builder that writes equal vectors once: each quantized channel has a zero point of 8 bytes."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._vectors: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 - the library's name
        key = (x.dtype.str, x.tobytes())
        if key not in self._vectors:
            self._vectors[key] = super().CreateNumpyVector(x)
        return self._vectors[key]


def write_graph(graph: Graph) -> bytes:
    """Return a graph as the bytes of a ``.tflite`` file.

    Raises:
        ConversionFailed: It does not fit into one file.
    """
    tensors = list(graph.tensors())
    _name_uniquely(graph, tensors)
    index = {id(tensor): number for number, tensor in enumerate(tensors)}
    model = schema.ModelT()
    model.buffers = [schema.BufferT()]
    subgraph = schema.SubGraphT()
    subgraph.name = "main"
    subgraph.tensors = [_tensor(tensor, model.buffers) for tensor in tensors]
    subgraph.inputs = [index[id(tensor)] for tensor in graph.inputs.values()]
    subgraph.outputs = [index[id(tensor)] for tensor in graph.outputs.values()]
    subgraph.operators = [_operator(operator, index) for operator in graph.operators]
    model.operatorCodes = [_code(operator.code) for operator in graph.operators]
    for number, operator in enumerate(subgraph.operators):
        operator.opcodeIndex = number
    model.subgraphs = [subgraph]
    model.signatureDefs = [_signature(graph, index)]
    layers = [[operator.output.name, *operator.nodes] for operator in graph.operators]
    entry = schema.MetadataT()
    entry.name, entry.buffer = LAYERS, len(model.buffers)
    model.metadata = [entry]
    model.buffers.append(schema.BufferT(data=msgspec.json.encode(layers)))
    return write_model(model)


def write_model(model: Any) -> bytes:
    """Return a model as the bytes of a ``.tflite`` file, its operators under their lowest versions.

    Args:
        model: In the schema's object API, each operator referring to a code of any version; buffers hold
            their contents in ``data``.

    Raises:
        ConversionFailed: It does not fit into one file.
    """
    model.version = SCHEMA_VERSION
    model.description = DESCRIPTION
    _number_codes(model)
    _number_buffers(model)
    size_bytes = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    if size_bytes > MAX_SIZE_BYTES:
        raise ConversionFailed(
            f"The model's constants have {size_bytes} bytes; a TFLite file holds {MAX_SIZE_BYTES} at most."
        )
    for number, buffer in enumerate(model.buffers):
        model.buffers[number] = _Buffer(data=buffer.data)
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            if tensor.quantization is not None and tensor.quantization.zeroPoint is not None:
                tensor.quantization.zeroPoint = np.asarray(tensor.quantization.zeroPoint, dtype="<i8")
    builder = _Builder(size_bytes + 4096)
    try:
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    except flatbuffers.builder.BuilderSizeError as error:
        raise ConversionFailed("The model does not fit into one TFLite file.") from error
    return bytes(builder.Output())


def _number_codes(model: Any) -> None:
    """Give the model one code for each kind and version of operator, in the order of their first use."""
    known: dict[tuple[int, int], int] = {}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            entry = model.operatorCodes[operator.opcodeIndex]
            code = max(entry.builtinCode, entry.deprecatedBuiltinCode)
            used = [*operator.inputs, *operator.outputs]
            tensors = [subgraph.tensors[number] if number >= 0 else None for number in used]
            version = operator_version(
                code,
                [None if tensor is None else tensor.type for tensor in tensors],
                [0 if tensor is None or tensor.shape is None else len(tensor.shape) for tensor in tensors],
                operator.builtinOptions,
            )
            operator.opcodeIndex = known.setdefault((code, version), len(known))
    model.operatorCodes = [_code(code, version) for code, version in known]


def _number_buffers(model: Any) -> None:
    """Keep the buffers that something refers to, in the order of their first use; number 0 is empty."""
    users = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    users += model.metadata or []
    known, kept = {0: 0}, [schema.BufferT()]
    for user in users:
        data = model.buffers[user.buffer].data
        number = 0 if data is None or not len(data) else user.buffer
        if number not in known:
            known[number] = len(kept)
            kept.append(model.buffers[number])
        user.buffer = known[number]
    model.buffers = kept


def _code(code: int, version: int = 1) -> Any:
    entry = schema.OperatorCodeT()
    entry.builtinCode = code
    entry.deprecatedBuiltinCode = min(code, MAX_LEGACY_CODE)
    entry.version = version
    return entry


def _name_uniquely(graph: Graph, tensors: list[Tensor]) -> None:
    """Let inputs and outputs keep the caller's names and number all others apart."""
    for name, tensor in (graph.inputs | graph.outputs).items():
        tensor.name = name
    fixed = {id(tensor) for tensor in (*graph.inputs.values(), *graph.outputs.values())}
    taken = {tensor.name for tensor in tensors if id(tensor) in fixed}
    for tensor in tensors:
        if id(tensor) in fixed:
            continue
        name, number = tensor.name, 2
        while name in taken:
            name, number = f"{tensor.name};{number}", number + 1
        tensor.name = name
        taken.add(name)


def _tensor(tensor: Tensor, buffers: list[Any]) -> Any:
    entry = schema.TensorT()
    entry.name = tensor.name
    entry.type = TYPES[tensor.dtype.name]
    entry.shape = list(at_batch_one(tensor.shape))
    entry.hasRank = True
    if tensor.value is None:
        if min(tensor.shape, default=0) < 0:
            entry.shapeSignature = list(signature(tensor.shape))
        entry.buffer = 0
        return entry
    entry.buffer = len(buffers)
    buffers.append(schema.BufferT(data=_raw(tensor.value)))
    return entry


def _raw(value: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).tobytes()


def _operator(operator: Operator, index: dict[int, int]) -> Any:
    entry = schema.OperatorT()
    entry.inputs = [-1 if tensor is None else index[id(tensor)] for tensor in operator.inputs]
    entry.outputs = [index[id(tensor)] for tensor in operator.outputs]
    if operator.options is not None:
        entry.builtinOptions = operator.options
        entry.builtinOptionsType = getattr(schema.BuiltinOptions, type(operator.options).__name__[:-1])
    return entry


def _signature(graph: Graph, index: dict[int, int]) -> Any:
    entry = schema.SignatureDefT()
    entry.signatureKey = SIGNATURE
    entry.subgraphIndex = 0
    for side, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        maps = []
        for name, tensor in tensors.items():
            item = schema.TensorMapT()
            item.name = name
            item.tensorIndex = index[id(tensor)]
            maps.append(item)
        setattr(entry, side, maps)
    return entry
