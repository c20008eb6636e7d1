"""What the runtime of older devices makes of TFLite files, and which of them it is ever offered."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from converters.runtimes.runtime import Footprint
from converters.runtimes.tflite import LITERT
from converters.runtimes.tflite_versions import TFLITE_RUNTIME_VERSIONS
from converters.targets import TARGETS
from fleet.protocol.errors import VariantUnsupported
from fleet.protocol.messages import Capabilities
from fleet.protocol.requirement import RuntimeRequirement, suitable_runtime
from tests.support.digits import digits_work, training_and_held_out
from tests.support.old_runtime import answers_of_tflite_runtime, loaded_by_tflite_runtime

WORK = digits_work("mlp", "standard")
OLD_DEVICE = Capabilities("1", "armv7l", {"tflite-runtime": "2.14.0"}, 2**30, 2**30)
NEW_DEVICE = Capabilities("1", "aarch64", {"litert": "2.1.0"}, 2**30, 2**30)


def _requirement(footprint: Footprint) -> RuntimeRequirement:
    return RuntimeRequirement(footprint.runtimes, 1, footprint.peak_memory_bytes, footprint.operators)


def _suits(model: bytes, device: Capabilities) -> bool:
    try:
        suitable_runtime(_requirement(LITERT.footprint(model, WORK.signature)), device)
    except VariantUnsupported:
        return False
    return True


@cache
def _dynamic_int8() -> bytes:
    """Return the model with weights in int8 and activations quantized on the way, as many files have them."""
    from ai_edge_quantizer import quantizer, recipe

    with contextlib.redirect_stdout(io.StringIO()):
        quantizing = quantizer.Quantizer(TARGETS["tflite-fp32"].build(WORK))
        quantizing.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        return bytes(quantizing.quantize().quantized_model)


def _accuracy(folder: Path, model: bytes) -> tuple[float, float]:
    """Return how many of the held-out images tflite-runtime gets right, and LiteRT."""
    _, held_out = training_and_held_out()
    old = answers_of_tflite_runtime(folder, model, held_out.features)
    new = LITERT.open(model, WORK.signature).run({"input": held_out.features})
    return tuple(float((answers.argmax(axis=1) == held_out.labels).mean()) for answers in (old, new))  # type: ignore[return-value]


def test_dynamic_int8_gives_nonsense_on_the_old_runtime_and_is_never_offered_to_it(tmp_path: Path) -> None:
    old, new = _accuracy(tmp_path, _dynamic_int8())
    assert new > 0.94
    assert old < 0.5  # without an error of any kind
    assert _suits(_dynamic_int8(), NEW_DEVICE)
    assert not _suits(_dynamic_int8(), OLD_DEVICE)


@pytest.mark.parametrize("target", ["tflite-fp32", "tflite-fp16", "tflite-int8"])
def test_what_we_write_runs_on_the_old_runtime(target: str, tmp_path: Path) -> None:
    model = TARGETS[target].build(WORK)
    assert _suits(model, OLD_DEVICE)
    old, new = _accuracy(tmp_path, model)
    assert old > 0.94
    assert abs(old - new) <= 0.01


def _only(operator: str, version: int) -> bytes:
    """Return a file that asks for one operator in one version, and has nothing else in it."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    code, node = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = version
    node.inputs, node.outputs = [], []
    if operator == "LSTM":  # the one operator that is not looked up without its options
        node.builtinOptionsType, node.builtinOptions = (
            schema.BuiltinOptions.LSTMOptions,
            schema.LSTMOptionsT(),
        )
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], [node]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = (
        3,
        [code],
        [graph],
        [schema.BufferT()],
    )
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_the_old_runtime_knows_the_versions_of_the_table_and_no_later_ones(tmp_path: Path) -> None:
    names = [name for name in vars(schema.BuiltinOperator) if not name.startswith("_")]
    candidates = {
        f"{name}@{version}": _only(name, version)
        for name in names
        if name not in {"CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES"}
        for version in {
            max(1, TFLITE_RUNTIME_VERSIONS.get(name, 0)),
            TFLITE_RUNTIME_VERSIONS.get(name, 0) + 1,
        }
    }
    expected = {f"{name}@{version}" for name, version in TFLITE_RUNTIME_VERSIONS.items()}
    assert loaded_by_tflite_runtime(tmp_path, candidates) == expected


def test_rounding_matters_more_to_integers(tmp_path: Path) -> None:
    _, held_out = training_and_held_out()
    golden = {"input": held_out.features[:32]}
    int8, fp32 = (TARGETS[name].build(WORK) for name in ("tflite-int8", "tflite-fp32"))
    spread = LITERT.rounding(int8, WORK.signature, golden, 0)
    assert 1e-4 < spread < 0.05
    assert 0 < LITERT.rounding(fp32, WORK.signature, golden, 0) < 1e-3
    old = answers_of_tflite_runtime(tmp_path, int8, golden["input"])
    assert np.abs(old - LITERT.open(int8, WORK.signature).run(golden)).max() <= spread
