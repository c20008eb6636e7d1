"""Look into a TFLite file that anybody may have written, before a runtime is trusted with it.

LiteRT is C++ and does not verify files: a wrong offset or index in one is an access to foreign memory. So
everything that it follows on loading is checked here: each table, vector and string lies within the file,
each index names something, each constant has the size of its tensor. Files with parts that cannot be checked
(sparse tensors, variants, StableHLO options with vectors) are refused. What kernels do with a well-formed but
senseless graph is not checked: run unknown files in a process of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from converters.tflite.parts import DTYPES, Value, check_indices, check_options, checked_code, checked_tensor
from converters.tflite.tables import Table, root
from fleet.protocol.errors import InvalidModel
from fleet.protocol.manifest import Tensor

IDENTIFIER = b"TFL3"
MAX_SIZE_BYTES = 2**31 - 1
MIN_SIZE_BYTES = 16
SCHEMA_VERSION = 3

Quantization = Literal["fp32", "fp16", "int8", "dynamic-int8"]
"""What the products of a model compute with.

================  ==============================================================================
``fp32``          float32 weights
``fp16``          float16 weights, made float32 before use
``int8``          8-bit weights and activations (static)
``dynamic-int8``  weights of 8 bits or fewer, activations made so while running (dynamic range)
================  ==============================================================================
"""


@dataclass(frozen=True)
class TfliteOperator:
    """A kind of operator in a model.

    Attributes:
        name: The schema's name, such as ``CONV_2D``; a custom operator's own name.
        version: The version that the file asks for.
        count: How often it occurs.
        custom: Whether it is not one of TFLite's own.
    """

    name: str
    version: int
    count: int
    custom: bool = False


@dataclass(frozen=True)
class TfliteModel:
    """What a TFLite file says of itself.

    Attributes:
        inputs: By the signature's names where the file has one.
        outputs: Likewise.
        operators: The kinds of operators, in the file's order.
        quantization: What its products compute with.
        size_bytes: Size of the file.
        external_buffers: Whether weights lie behind the flatbuffer, which runtimes before 2.15 do not read.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[TfliteOperator, ...]
    quantization: Quantization
    size_bytes: int
    external_buffers: bool


def inspect_tflite(data: bytes) -> TfliteModel:
    """Return what a TFLite file contains, every part of it checked.

    Args:
        data: The file; nothing about it is trusted.

    Raises:
        InvalidModel: It is not a TFLite file, is damaged, is larger than 2 GiB, or has parts that cannot be
            checked.
    """
    if len(data) > MAX_SIZE_BYTES:
        raise InvalidModel(f"The file has {len(data)} bytes; a TFLite file has {MAX_SIZE_BYTES} at most.")
    if len(data) < MIN_SIZE_BYTES or data[4:8] != IDENTIFIER:
        raise InvalidModel("The file is not TFLite: it does not carry the identifier TFL3.")
    model = root(bytes(data))
    if (version := model.number(0, "I")) != SCHEMA_VERSION:
        raise InvalidModel(f"The TFLite file has schema version {version}; {SCHEMA_VERSION} is known.")
    return _File(model, len(data)).described()


class _File:
    """A file under inspection."""

    def __init__(self, model: Table, size_bytes: int) -> None:
        self._model = model
        self._size_bytes = size_bytes
        self._buffers = [self._buffer(buffer) for buffer in model.tables(4)]
        self._codes = [checked_code(code) for code in model.tables(1)]
        self._used = [0] * len(self._codes)
        self._products: set[Quantization] = set()

    def described(self) -> TfliteModel:
        subgraphs = list(self._model.tables(2))
        if not subgraphs:
            raise InvalidModel("The TFLite file has no graph.")
        sizes = [size_bytes for size_bytes, _ in self._buffers]
        values = [[checked_tensor(tensor, sizes) for tensor in subgraph.tables(0)] for subgraph in subgraphs]
        for subgraph, tensors in zip(subgraphs, values, strict=True):
            self._check_graph(subgraph, tensors)
        names = self._signatures(values)
        self._check_metadata()
        self._model.text(3)  # the producer's words
        inputs, outputs = (
            tuple(
                _described(values[0], int(index), names[side]) for index in subgraphs[0].vector(field, "i4")
            )
            for side, field in (("inputs", 1), ("outputs", 2))
        )
        return TfliteModel(
            inputs=inputs,
            outputs=outputs,
            operators=tuple(
                TfliteOperator(name, version, count, custom)
                for (name, version, custom), count in zip(self._codes, self._used, strict=True)
            ),
            quantization=self._quantization(),
            size_bytes=self._size_bytes,
            external_buffers=any(external for _, external in self._buffers),
        )

    def _buffer(self, buffer: Table) -> tuple[int, bool]:
        """Return a buffer's size in bytes, and whether it lies behind the flatbuffer."""
        offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
        if offset > 1 or size > 1:
            if offset + size > self._size_bytes:
                raise InvalidModel("The TFLite file is damaged: a buffer lies outside of it.")
            return size, True
        return len(buffer.contents(0)), False

    def _check_graph(self, subgraph: Table, tensors: list[Value]) -> None:
        subgraph.text(4)
        for field in (1, 2):
            check_indices(subgraph.vector(field, "i4").tolist(), len(tensors), optional=False)
        for operator in subgraph.tables(3):
            code = operator.number(0, "I")
            if code >= len(self._codes):
                raise InvalidModel(f"An operator of the TFLite file has code {code}, which is missing.")
            reads, writes = operator.vector(1, "i4").tolist(), operator.vector(2, "i4").tolist()
            check_indices(reads, len(tensors), optional=True)
            check_indices(writes, len(tensors), optional=False)
            check_indices(operator.vector(8, "i4").tolist(), len(tensors), optional=True)
            operator.vector(5, "u1")
            operator.vector(7, "u1")
            if operator.number(9, "Q") + operator.number(10, "Q") > self._size_bytes:
                raise InvalidModel("The TFLite file is damaged: options of an operator lie outside of it.")
            check_options(operator)
            self._used[code] += 1
            self._note(self._codes[code][0], [tensors[index] for index in reads if index >= 0])

    def _note(self, name: str, reads: list[Value]) -> None:
        """Remember what an operator says of the model's quantization.

        One that takes both float activations and constants of 8 bits or fewer computes in dynamic range,
        whichever it is.
        """
        from ai_edge_litert.schema_py_generated import TensorType

        if name == "DEQUANTIZE" and reads and reads[0].constant and reads[0].type == TensorType.FLOAT16:
            self._products.add("fp16")
        small = {TensorType.INT8, TensorType.UINT8, TensorType.INT4}
        float_data = any(read.type == TensorType.FLOAT32 and not read.constant for read in reads)
        if float_data and any(read.type in small and read.constant for read in reads):
            self._products.add("dynamic-int8")
        if name in _PRODUCTS and len(reads) > 1 and reads[1].type in small:
            self._products.add("dynamic-int8" if float_data else "int8")

    def _quantization(self) -> Quantization:
        order: tuple[Quantization, ...] = ("dynamic-int8", "int8", "fp16")
        return next((kind for kind in order if kind in self._products), "fp32")

    def _signatures(self, values: list[list[Value]]) -> dict[str, dict[int, str]]:
        """Check the signatures; return the names that the first of graph 0 gives to tensors."""
        names: dict[str, dict[int, str]] = {"inputs": {}, "outputs": {}}
        for signature in self._model.tables(7):
            graph = signature.number(4, "I")
            if graph >= len(values):
                raise InvalidModel(f"A signature of the TFLite file is of graph {graph}, which is missing.")
            signature.text(2)
            for side, field in (("inputs", 0), ("outputs", 1)):
                pairs = {item.number(1, "I"): item.text(0) for item in signature.tables(field)}
                check_indices(list(pairs), len(values[graph]), optional=False)
                if graph == 0 and not names[side]:
                    names[side] = pairs
        return names

    def _check_metadata(self) -> None:
        for entry in self._model.tables(6):
            buffer = entry.number(1, "I")
            if buffer >= len(self._buffers):
                raise InvalidModel(
                    f"Metadata of the TFLite file refers to buffer {buffer}, which is missing."
                )
            entry.text(0)


_PRODUCTS = frozenset(
    {"BATCH_MATMUL", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
)
"""Operators whose second input are weights."""


def _described(values: list[Value], index: int, names: dict[int, str]) -> Tensor:
    value = values[index]
    if value.type not in DTYPES:
        raise InvalidModel(
            f"Tensor {value.name!r:.80} of the TFLite file has an element type of no NumPy name."
        )
    return Tensor(names.get(index, value.name), DTYPES[value.type], value.shape)
