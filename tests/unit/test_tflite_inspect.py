"""What is read from TFLite files, and what is refused before a runtime sees it."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe import dynamic_wi8_afp32
from onnx import helper

from converters.tflite.emit import emit_tflite
from converters.tflite.inspect import TfliteOperator, inspect_tflite
from converters.tflite.run import TfliteSession
from fleet.protocol.errors import ConversionFailed, InvalidModel
from fleet.protocol.manifest import Tensor
from tests.support.tflite_graphs import graph, weights


def dense() -> bytes:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    return emit_tflite(graph(nodes, {"x": ("N", 32)}, {"w": weights(1, 32, 64), "v": weights(2, 64, 8)}))


def changed(change: Any, model: bytes | None = None) -> bytes:
    """Return the model after a change to its tables, written by the generated code."""
    tables = read_model_from_bytearray(bytearray(model or dense()))
    change(tables)
    builder = flatbuffers.Builder(1024)
    builder.Finish(tables.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_file_is_described() -> None:
    described = inspect_tflite(dense())
    assert described.inputs == (Tensor("x", "float32", (-1, 32)),)
    assert described.outputs == (Tensor("y", "float32", (-1, 8)),)
    assert described.operators == (TfliteOperator("FULLY_CONNECTED", 1, 2), TfliteOperator("TANH", 1, 1))
    assert (described.quantization, described.size_bytes) == ("fp32", len(dense()))
    assert not described.external_buffers


def test_dynamic_int8_is_told_from_static() -> None:
    result = Quantizer(dense(), dynamic_wi8_afp32()).quantize(enable_progress_report=False)
    assert result.quantized_model is not None
    assert inspect_tflite(bytes(result.quantized_model)).quantization == "dynamic-int8"


def test_any_operator_of_float_activations_and_8_bit_weights_is_dynamic() -> None:
    def change(tables: Any) -> None:
        """Make products cells of a recurrent network, whose 8-bit weights are not their second input."""
        (dense_code,) = (c for c in tables.operatorCodes if c.builtinCode == FULLY_CONNECTED)
        dense_code.builtinCode = dense_code.deprecatedBuiltinCode = schema.BuiltinOperator.RNN
        for operator in tables.subgraphs[0].operators:
            if tables.operatorCodes[operator.opcodeIndex] is dense_code:
                operator.builtinOptions, operator.builtinOptionsType = None, 0
                operator.inputs = operator.inputs[::-1]

    FULLY_CONNECTED = schema.BuiltinOperator.FULLY_CONNECTED  # noqa: N806 - the schema's name
    result = Quantizer(dense(), dynamic_wi8_afp32()).quantize(enable_progress_report=False)
    assert result.quantized_model is not None
    assert inspect_tflite(changed(change, bytes(result.quantized_model))).quantization == "dynamic-int8"


def test_file_without_signature_is_named_by_its_tensors() -> None:
    def change(tables: Any) -> None:
        tables.signatureDefs = None
        tables.subgraphs[0].tensors[0].name = "first"

    model = changed(change)
    assert inspect_tflite(model).inputs[0].name == "first"
    assert TfliteSession(model).run({"first": weights(1, 2, 32)})["y"].shape == (2, 8)


def test_metadata_may_refer_only_to_buffers_that_are_there() -> None:
    def change(tables: Any, *, beyond: int) -> None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = "min_runtime_version", len(tables.buffers) - 1 + beyond
        tables.metadata = [entry]

    assert inspect_tflite(changed(partial(change, beyond=0))).inputs
    with pytest.raises(InvalidModel, match="refers to buffer"):
        inspect_tflite(changed(partial(change, beyond=1)))


def test_custom_operator_has_its_own_name() -> None:
    def change(tables: Any) -> None:
        code = tables.operatorCodes[1]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = "Strange"

    model = changed(change)
    assert TfliteOperator("Strange", 1, 1, custom=True) in inspect_tflite(model).operators
    with pytest.raises(ConversionFailed, match="LiteRT cannot load"):
        TfliteSession(model)


def test_product_without_its_inputs_is_described_all_the_same() -> None:
    def change(tables: Any) -> None:
        code = tables.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.TRANSPOSE_CONV
        tables.subgraphs[0].operators[0].inputs = [0, 1]

    assert inspect_tflite(changed(change)).operators[0].name == "TRANSPOSE_CONV"


def _tensor(field: str, value: Any) -> Any:
    def change(tables: Any) -> None:
        setattr(tables.subgraphs[0].tensors[1], field, value)

    return change


def _operator(field: str, value: Any) -> Any:
    def change(tables: Any) -> None:
        setattr(tables.subgraphs[0].operators[0], field, value)

    return change


def _scales(tables: Any) -> None:
    tables.subgraphs[0].tensors[1].quantization = schema.QuantizationParametersT(
        scale=[0.1] * 7, zeroPoint=[0] * 7
    )


def _zero_point(tables: Any) -> None:
    tables.subgraphs[0].tensors[1].quantization = schema.QuantizationParametersT(
        scale=[0.1], zeroPoint=[2**20]
    )


def _external(tables: Any) -> None:
    tables.buffers[1].data, tables.buffers[1].offset, tables.buffers[1].size = None, 64, 2**33


def _signature(tables: Any) -> None:
    tables.signatureDefs[0].outputs[0].tensorIndex = 99


def _version(tables: Any) -> None:
    tables.version = 4


def _graph(tables: Any) -> None:
    tables.subgraphs = []


def _stablehlo(tables: Any) -> None:
    operator = tables.subgraphs[0].operators[0]
    operator.builtinOptions2Type = schema.BuiltinOptions2.StablehloPadOptions
    operator.builtinOptions2 = schema.StablehloPadOptionsT()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_tensor("shape", [64, 33]), "8192 bytes for shape"),
        (_tensor("shape", [-64, -32]), "shape that cannot be"),
        (_tensor("shape", [2**31 - 1] * 8), "bytes for shape"),
        (_tensor("shapeSignature", [-1]), "numbers of dimensions"),
        (_tensor("type", 99), "element type"),
        (_tensor("buffer", 77), "buffer 77"),
        (_tensor("sparsity", schema.SparsityParametersT()), "sparse"),
        (_scales, "7 scales"),
        (_zero_point, "zero point"),  # LiteRT dies of it
        (_external, "outside of it"),
        (_operator("opcodeIndex", 9), "code 9"),
        (_operator("inputs", [0, 1, 99]), "tensors that are missing"),
        (_operator("outputs", [-1]), "tensors that are missing"),
        (_signature, "tensors that are missing"),
        (_version, "schema version 4"),
        (_graph, "no graph"),
        (_stablehlo, "StableHLO"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_senseless_tables_are_refused(change: Any, why: str) -> None:
    with pytest.raises(InvalidModel, match=why):
        inspect_tflite(changed(change))


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 64, b"\x10\0\0\0TFL3" + b"\xff" * 64, dense()[:100]])
def test_what_is_no_tflite_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidModel):
        inspect_tflite(data)


def test_small_file_that_looks_large_is_refused_in_time() -> None:
    """A thousand graphs that are all the same large one."""

    def change(tables: Any) -> None:
        tables.subgraphs[0].operators *= 100
        tables.subgraphs += [schema.SubGraphT() for _ in range(1000)]

    data = bytearray(changed(change))
    table = schema.Model.GetRootAs(data, 0)._tab
    first = table.Vector(table.Offset(8))
    distance = struct.unpack_from("<I", data, first)[0]
    for number in range(1001):
        struct.pack_into("<I", data, first + 4 * number, distance - 4 * number)
    with pytest.raises(InvalidModel, match="over and over"):
        inspect_tflite(bytes(data))


def test_inputs_of_other_names_and_shapes_are_refused() -> None:
    session = TfliteSession(dense())
    with pytest.raises(ConversionFailed, match="takes the inputs x"):
        session.run({"y": np.zeros((1, 32), dtype=np.float32)})
    with pytest.raises(ConversionFailed, match="cannot run"):
        session.run({"x": np.zeros((1, 31), dtype=np.float32)})
    assert session.run({"x": np.zeros((5, 32), dtype=np.float32)})["y"].shape == (5, 8)
