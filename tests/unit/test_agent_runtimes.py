"""The adapters of inference runtimes, each with its real runtime: what they answer and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from agent.runtimes.litert import LiteRt, TfliteRuntime
from agent.runtimes.onnx import OnnxRuntime
from agent.runtimes.protocol import LoadedModel, Runtime
from agent.runtimes.registry import RUNTIMES, available_runtimes, runtime
from agent.serving.tensors import DATATYPES
from fleet.protocol.errors import InferenceFailed, VariantUnsupported
from fleet.protocol.manifest import Signature, Tensor
from fleet.protocol.requirement import version_key
from tests.support import agent_models as models
from tests.support.agent_bundles import build, build_word_score
from tests.support.agent_models import CLASSES, PIXELS
from tests.support.agent_tflite import dense_softmax

WEIGHTS = np.random.default_rng(11).normal(size=(PIXELS, CLASSES)).astype(np.float32)
SIGNATURE = build(1).manifest.signature


def onnx(folder: Path) -> tuple[Runtime, Path]:
    path = folder / "model.onnx"
    path.write_bytes(models.linear(WEIGHTS))
    return OnnxRuntime(), path


def ort(folder: Path) -> tuple[Runtime, Path]:
    """The runtime's own format, which it writes itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(folder / "model.ort")
    onnxruntime.InferenceSession(models.linear(WEIGHTS), options, providers=["CPUExecutionProvider"])
    return OnnxRuntime(), folder / "model.ort"


def tflite(folder: Path) -> tuple[Runtime, Path]:
    return _written(folder, dense_softmax(WEIGHTS))


def tflite_without_signature(folder: Path) -> tuple[Runtime, Path]:
    return _written(folder, dense_softmax(WEIGHTS, signed=False))


def tflite_for_one_sample(folder: Path) -> tuple[Runtime, Path]:
    """Many files of others state a batch of one; the interpreter can still be told another size."""
    return _written(folder, dense_softmax(WEIGHTS, batch=1))


def _written(folder: Path, data: bytes) -> tuple[Runtime, Path]:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return LiteRt(), path


Make = Callable[[Path], tuple[Runtime, Path]]
each_kind = pytest.mark.parametrize(
    "make", [onnx, ort, tflite, tflite_without_signature, tflite_for_one_sample]
)


def loaded(make: Make, folder: Path) -> LoadedModel:
    adapter, path = make(folder)
    return adapter.load(path, SIGNATURE)


@each_kind
def test_batches_of_any_size_are_answered_as_the_model_says(make: Make, tmp_path: Path) -> None:
    model = loaded(make, tmp_path)
    rng = np.random.default_rng(0)
    for size in (1, 5, 5, 1, 70):
        pixels = rng.random((size, PIXELS)).astype(np.float32)
        scores = np.exp(pixels @ WEIGHTS)
        (answer,) = model.infer({"pixels": pixels}).values()
        np.testing.assert_allclose(answer, scores / scores.sum(axis=1, keepdims=True), atol=1e-6)


@each_kind
def test_an_answer_stays_when_the_next_one_comes(make: Make, tmp_path: Path) -> None:
    model = loaded(make, tmp_path)
    first = model.infer({"pixels": np.zeros((1, PIXELS), dtype=np.float32)})["probabilities"]
    before = first.copy()
    model.infer({"pixels": np.ones((1, PIXELS), dtype=np.float32)})
    np.testing.assert_array_equal(first, before)


@each_kind
@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, PIXELS + 1), dtype=np.float32),
        np.zeros((1, PIXELS, 1), dtype=np.float32),
        np.zeros((2, PIXELS // 2), dtype=np.float32),
        np.zeros((1, PIXELS), dtype=np.float64),
    ],
    ids=["wide", "deep", "narrow", "double"],
)
def test_what_the_model_does_not_take_fails_and_hurts_nothing(
    make: Make, tmp_path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> None:
    model = loaded(make, tmp_path)
    good = np.full((3, PIXELS), 0.5, dtype=np.float32)
    before = model.infer({"pixels": good})["probabilities"]
    with pytest.raises(InferenceFailed):
        model.infer({"pixels": pixels})
    np.testing.assert_array_equal(model.infer({"pixels": good})["probabilities"], before)


@each_kind
@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_a_file_with_other_tensors_than_its_manifest_is_refused(
    make: Make, tmp_path: Path, kind: str
) -> None:
    adapter, path = make(tmp_path)
    other = (Tensor("other", "float32", (-1, PIXELS)),)
    with pytest.raises(VariantUnsupported, match="other"):
        adapter.load(path, msgspec.structs.replace(SIGNATURE, **{kind: other}))


@each_kind
@pytest.mark.parametrize("keep", [0, 0.5, 0.97])
def test_a_file_that_was_cut_is_refused(make: Make, tmp_path: Path, keep: float) -> None:
    adapter, path = make(tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(VariantUnsupported):
        adapter.load(path, SIGNATURE)


def test_the_runtimes_own_format_is_mapped_and_not_read(tmp_path: Path) -> None:
    model = loaded(ort, tmp_path)
    assert str(tmp_path / "model.ort") in Path("/proc/self/maps").read_text("utf-8")
    assert model.platform == "onnxruntime_onnx"


def test_a_signature_of_another_graph_than_the_one_that_runs_is_refused(tmp_path: Path) -> None:
    adapter, path = _written(tmp_path, dense_softmax(WEIGHTS, signed_graph=1))
    with pytest.raises(VariantUnsupported, match="first graph"):
        adapter.load(path, SIGNATURE)


def test_text_is_not_carried_to_tensorflow_lite(tmp_path: Path) -> None:
    adapter, path = tflite(tmp_path)
    with pytest.raises(VariantUnsupported, match="Text"):
        adapter.load(path, build_word_score().manifest.signature)


def test_an_operator_that_the_runtime_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.word_score().replace(b"LabelEncoder", b"LabelDecoder"))
    with pytest.raises(VariantUnsupported, match="LabelDecoder"):
        OnnxRuntime().load(path, build_word_score().manifest.signature)


def test_a_runtime_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    """It is not installed here; the registry would not offer it."""
    _, path = tflite(tmp_path)
    with pytest.raises(VariantUnsupported, match="tflite_runtime"):
        TfliteRuntime().load(path, SIGNATURE)


def test_what_is_installed_is_offered_and_loads(tmp_path: Path) -> None:
    offered = available_runtimes()
    assert {"onnxruntime", "litert"} <= offered.keys()
    assert all(version_key(version) for version in offered.values())
    _, path = tflite(tmp_path)
    assert runtime("litert").load(path, SIGNATURE).platform == "litert_tflite"


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(VariantUnsupported, match="abacus"):
        runtime("abacus")


@pytest.mark.parametrize(("numpy", "offered"), [("1.26.4", True), ("2.0.0", False)])
def test_tflite_runtime_is_offered_only_with_the_numpy_that_it_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numpy: str, offered: bool
) -> None:
    for name, version in {"tflite_runtime": "2.14.0", "numpy": numpy}.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert available_runtimes().get("tflite-runtime") == ("2.14.0" if offered else None)


def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.tabular())
    signature = Signature(
        inputs=(Tensor("city", "str", (-1, 1)), Tensor("numbers", "float32", (-1, 2), missing=True)),
        outputs=(Tensor("label", "str", (-1,)),),
    )
    model = OnnxRuntime().load(path, signature)
    cities = np.array([["lyon"], ["oslo"]], dtype=object)
    answer = model.infer({"numbers": np.zeros((2, 2), dtype=np.float32), "city": cities})
    assert {name: value.tolist() for name, value in answer.items()} == {"label": ["no", "yes"]}


def test_every_runtime_and_datatype_is_documented() -> None:
    reference = Path(__file__).parents[2] / "docs" / "reference"
    runtimes, api = ((reference / f"agent-{page}.md").read_text("utf-8") for page in ("runtimes", "api"))
    for name, entry in RUNTIMES.items():
        (row,) = (line for line in runtimes.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"`{entry.distribution}`" in row
    assert [datatype for datatype in DATATYPES.values() if f"`{datatype}`" not in api] == []
