"""Sources from ``.tflite`` files: kept as they are, inspected, run first in a process of their own."""

from __future__ import annotations

import contextlib
import io
import sys
from functools import cache
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import helper

from converters.source import Source
from converters.sources import tflite_trial
from converters.sources.tflite_file import open_tflite
from converters.tflite.emit import emit_tflite
from converters.tflite.quantize import quantize_tflite_int8, weights_to_fp16
from converters.tflite.run import TfliteSession
from fleet.protocol.errors import InvalidModel, NotFound, UnsupportedOperator
from fleet.protocol.manifest import Tensor
from tests.support.onnx_models import cnn, model, value


@cache
def _emitted(batch: int | str = "n") -> bytes:
    return emit_tflite(cnn(batch=batch))


def _images(count: int) -> NDArray[np.float32]:
    return np.random.RandomState(1).standard_normal((count, 3, 8, 8)).astype(np.float32)


def _dynamic_int8() -> bytes:
    from ai_edge_quantizer import quantizer, recipe

    with contextlib.redirect_stdout(io.StringIO()):
        quantizing = quantizer.Quantizer(_emitted())
        quantizing.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        return bytes(quantizing.quantize().quantized_model)


def _source(folder: Path, data: bytes) -> Source:
    (folder / "m.tflite").write_bytes(data)
    return open_tflite(folder / "m.tflite")


def _refusal(folder: Path, data: bytes, kind: type[Exception] = InvalidModel) -> str:
    with pytest.raises(kind) as caught:
        _source(folder, data)
    assert "m.tflite" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("build", "precision", "told"),
    [
        (_emitted, "fp32", ""),
        (lambda: weights_to_fp16(_emitted()), "fp16", ""),
        (lambda: quantize_tflite_int8(_emitted(), {"image": _images(16)}), "int8", ""),
        (_dynamic_int8, "int8", "only LiteRT gets it"),
    ],
    ids=["fp32", "fp16", "int8", "dynamic-int8"],
)
def test_a_file_is_kept_as_it_is(tmp_path: Path, build: object, precision: str, told: str) -> None:
    assert callable(build)
    data = build()
    source = _source(tmp_path, data)
    assert (source.tflite, source.onnx, source.precision) == (data, None, precision)
    assert source.signature.inputs == (Tensor("image", "float32", (-1, 3, 8, 8)),)
    assert source.signature.outputs == (Tensor("probabilities", "float32", (-1, 10)),)
    assert source.signature.task == "classification"
    expected = TfliteSession(data).run({"image": _images(5)})["probabilities"]
    np.testing.assert_array_equal(source.answer({"image": _images(5)}), expected)
    assert any(told in caution for caution in source.cautions)
    assert any("dynamic range" in caution for caution in source.cautions) == bool(told)


def test_a_fixed_batch_stays_and_is_fed_so(tmp_path: Path) -> None:
    one, any_number = _source(tmp_path, _emitted(1)), _source(tmp_path, _emitted())
    assert one.signature.inputs[0].shape == (1, 3, 8, 8)
    assert one.signature.outputs[0].shape == (1, 10)
    assert "It takes 1 sample at a time." in one.cautions
    expected = any_number.answer({"image": _images(5)})
    np.testing.assert_allclose(one.answer({"image": _images(5)}), expected, atol=1e-6)
    eight = _source(tmp_path, _emitted(8))
    np.testing.assert_allclose(
        eight.answer({"image": _images(11)}), any_number.answer({"image": _images(11)}), atol=1e-6
    )


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_tflite(tmp_path / "m.tflite")
    assert "empty" in _refusal(tmp_path, b"")
    assert "not TFLite" in _refusal(tmp_path, b"not a model, but long enough to be read")
    assert "damaged" in _refusal(tmp_path, _emitted()[:3000])


def _changed(change: object) -> bytes:
    """Return the model after a change to its tables."""
    assert callable(change)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(_emitted()))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _open_width(model: schema.ModelT) -> None:
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shapeSignature = [-1, 3, 8, -1]


def _custom(model: schema.ModelT) -> None:
    code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"FlexErf"
    for operator in model.subgraphs[0].operators:
        if model.operatorCodes[operator.opcodeIndex] is code:
            operator.builtinOptions, operator.builtinOptionsType = None, 0


def _huge(model: schema.ModelT) -> None:
    graph = model.subgraphs[0]
    inner = [operator.outputs[0] for operator in graph.operators[:-1]]
    graph.tensors[inner[0]].shape = [2**24, 8, 8, 3]


def test_a_shape_that_is_open_beyond_the_batch(tmp_path: Path) -> None:
    assert "open shape (-1, 3, 8, -1)" in _refusal(tmp_path, _changed(_open_width))


def test_an_operator_that_litert_does_not_have(tmp_path: Path) -> None:
    assert "FlexErf" in _refusal(tmp_path, _changed(_custom), UnsupportedOperator)


def test_a_senseless_shape_does_not_take_the_machines_memory(tmp_path: Path) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _refusal(tmp_path, _changed(_huge))  # 12 GiB, if LiteRT had its way
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_a_file_that_ends_or_holds_up_its_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(interpreter))
    for script, told in (
        ("kill -SEGV $$", "SIGSEGV"),
        ("exit 1", "bytes of memory"),
        ("exec sleep 60", "within"),
    ):
        interpreter.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
        interpreter.chmod(0o755)
        monkeypatch.setattr(tflite_trial, "TIMEOUT_S", 0.5 if "sleep" in script else 60)
        assert told in _refusal(tmp_path, _emitted())


def test_nothing_is_imported_from_where_a_model_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(0)  # all is well")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidModel):
        tflite_trial.check_runs(_changed(_huge), "m.tflite")


def _centred(batch: int | str) -> bytes:
    """Return a file that takes the mean over the batch from each sample."""
    mean = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1)
    nodes = [mean, helper.make_node("Sub", ["x", "mean"], ["y"])]
    return emit_tflite(model(nodes, [value("x", [batch, 3])], [value("y", [batch, 3])]))


@pytest.mark.parametrize("batch", ["n", 4])
def test_samples_that_influence_each_other_are_refused(tmp_path: Path, batch: int | str) -> None:
    assert "influence each other" in _refusal(tmp_path, _centred(batch))
