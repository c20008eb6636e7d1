"""Sources from PyTorch: trained modules, saved programs, and everything else that carries those suffixes."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from converters.sources.pytorch import open_pytorch
from converters.tflite.emit import emit_tflite
from converters.tflite.run import TfliteSession
from fleet.protocol.errors import ConversionFailed, InvalidModel
from tests.support.torch_models import MODELS, require_torch, trained


@pytest.fixture(scope="module", autouse=True)
def torch() -> Any:
    return require_torch()


@pytest.mark.parametrize("name", MODELS)
def test_trained_modules_become_graphs_that_answer_alike(torch: Any, name: str) -> None:
    model = trained(name)
    source = open_pytorch(model.module, example_inputs=model.inputs[:4])
    assert source.signature.task == model.task  # guessed right
    assert source.signature.inputs[0].shape == (-1, *model.inputs.shape[1:])
    with torch.no_grad():
        expected = model.module(torch.from_numpy(model.inputs)).numpy()
    (given,) = (tensor.name for tensor in source.signature.inputs)
    np.testing.assert_allclose(source.answer({given: model.inputs}), expected, atol=1e-6)
    assert source.onnx is not None
    session = ort.InferenceSession(source.onnx, providers=["CPUExecutionProvider"])
    for count in (1, 3, len(model.inputs)):
        found = session.run(None, {given: model.inputs[:count]})[0]
        np.testing.assert_allclose(found, expected[:count], atol=1e-4)
    tflite = TfliteSession(emit_tflite(onnx.load_model_from_string(source.onnx)))
    np.testing.assert_allclose(tflite.run({given: model.inputs})["output"], expected, atol=1e-4)
    if model.task == "classification":
        assert (expected.argmax(axis=1) == model.labels).mean() > 0.85  # it has really learnt something


def test_normalization_is_folded_and_every_node_has_a_name() -> None:
    model = trained("ds_cnn")
    source = open_pytorch(model.module, example_inputs=model.inputs[:4])
    assert source.onnx is not None
    nodes = onnx.load_model_from_string(source.onnx).graph.node
    assert {node.op_type for node in nodes} <= {
        "Conv", "Clip", "Add", "GlobalAveragePool", "ReduceMean", "Flatten", "Reshape", "Gemm", "Softmax"
    }  # fmt: skip
    assert len({node.name for node in nodes}) == len(nodes)


def test_the_same_module_gives_the_same_bytes_without_traces_of_this_machine() -> None:
    model = trained("mlp")
    first, second = (open_pytorch(model.module, example_inputs=model.inputs[:n]) for n in (1, 5))
    assert first.onnx == second.onnx
    assert first.onnx is not None
    for trace in (
        str(Path(__file__).parent),
        str(Path(sys.executable).parent.parent),
        "torch",
        "stack_trace",
    ):
        assert trace.encode() not in first.onnx


def test_several_inputs_and_outputs(torch: Any) -> None:
    def forward(self: Any, image: Any, weight: Any) -> Any:
        return {"label": image.argmax(dim=1), "scores": image * weight, "sum": image.sum(dim=1, keepdim=True)}

    module = type("Two", (torch.nn.Module,), {"forward": forward})().eval()
    random = np.random.RandomState(0)
    examples = (random.standard_normal((3, 4)), random.standard_normal((3, 1)))  # float64 is taken as float32
    source = open_pytorch(module, example_inputs=examples, task="regression")
    assert [tensor.name for tensor in source.signature.inputs] == ["image", "weight"]
    assert [tensor.shape for tensor in source.signature.outputs] == [(-1, 4), (-1, 1)]
    image, weight = (array.astype(np.float32) for array in examples)
    np.testing.assert_allclose(source.answer({"image": image, "weight": weight}), image * weight, rtol=1e-6)


def _saved(torch: Any, path: Path, count: int) -> Path:
    model = trained("cnn")
    shapes = ({0: torch.export.Dim("batch")},) if count > 1 else None
    example = torch.from_numpy(model.inputs[:count])
    torch.export.save(torch.export.export(model.module, (example,), dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("count", [1, 2])
def test_a_saved_program_is_read_when_trusted(torch: Any, tmp_path: Path, count: int) -> None:
    model = trained("cnn")
    path = _saved(torch, tmp_path / "m.pt2", count)
    source = open_pytorch(path, trusted=True)
    (given,) = (tensor.name for tensor in source.signature.inputs)
    with torch.no_grad():
        expected = model.module(torch.from_numpy(model.inputs[:9])).numpy()
    np.testing.assert_allclose(source.answer({given: model.inputs[:9]}), expected, atol=1e-6)
    assert source.onnx is not None
    session = ort.InferenceSession(source.onnx, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {given: model.inputs[:9]})[0], expected, atol=1e-4)


class _Program:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_saved_program_can_hold_code_and_is_not_read_untrusted(torch: Any, tmp_path: Path) -> None:
    path = _saved(torch, tmp_path / "m.pt2", 2)
    buffer = io.BytesIO()
    torch.save(_Program(tmp_path / "ran"), buffer)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, buffer.getvalue() if "sample_inputs" in name else data)
    with pytest.raises(InvalidModel, match=r"may hold code.*--trust-pickle"):
        open_pytorch(path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InvalidModel, match="cannot be read by PyTorch"):
        open_pytorch(path, trusted=True)
    assert (tmp_path / "ran").exists()  # so it is right to ask


def _pickled_weights(torch: Any, path: Path) -> None:
    torch.save(trained("mlp").module.state_dict(), path)


def _bare_pickle(torch: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": [1.0]}))


def _torch_script(torch: Any, path: Path) -> None:
    code = "def forward(self, x: Tensor) -> Tensor:\n    return torch.relu(x)\n"
    with zipfile.ZipFile(path, "w") as archive:  # as torch.jit.save lays it out
        archive.writestr("m/code/__torch__.py", code)
        archive.writestr("m/data.pkl", b"\x80\x02N.")
        archive.writestr("m/constants.pkl", b"\x80\x02N.")


def _compiled(torch: Any, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # as torch._inductor.aoti_compile_and_package lays it out
        archive.writestr("m/data/aotinductor/model/a.so", b"\x7fELF")
        archive.writestr("m/archive_format", "pt2")


def _cut_off(torch: Any, path: Path) -> None:
    _saved(torch, path, 2)
    path.write_bytes(path.read_bytes()[:1000])


def _bomb(torch: Any, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/models/model.json", bytes(50_000_000))


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (_pickled_weights, "a pickle of torch.save"),
        (_bare_pickle, "is a pickle"),
        (_torch_script, "is TorchScript"),
        (_compiled, "compiled for one kind of processor"),
        (_cut_off, "not a PyTorch file, or damaged"),
        (_bomb, "unpacks to 50000000 bytes"),
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_other_files_are_told_apart_and_say_how_to_save(
    torch: Any, tmp_path: Path, write: Any, told: str, trusted: bool
) -> None:
    path = tmp_path / "m.pt2"
    write(torch, path)
    with pytest.raises(InvalidModel, match=told) as caught:
        open_pytorch(path, trusted=trusted)
    assert str(path) in str(caught.value)
    if write not in {_cut_off, _bomb}:
        assert "torch.export.save(" in str(caught.value)


def test_a_program_that_pytorch_cannot_read(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/models/model.json", "{}")
    with pytest.raises(InvalidModel, match="cannot be read by PyTorch"):
        open_pytorch(path, trusted=True)


def test_modules_that_cannot_be_traced_say_why(torch: Any) -> None:
    images = np.zeros((2, 64), dtype=np.float32)

    def module(forward: Any) -> Any:
        return type("Own", (torch.nn.Module,), {"forward": forward})().eval()

    def refused(module: Any, told: str, inputs: Any = images, kind: Any = InvalidModel) -> None:
        with pytest.raises(kind, match=told):
            open_pytorch(module, example_inputs=inputs)

    refused(object(), "A torch.nn.Module or a .pt2 file is needed, not object")
    refused(torch.nn.Sequential(torch.nn.Dropout()), "training mode")
    refused(trained("mlp").module, "without inputs", None)
    refused(trained("mlp").module, r"fails on inputs of shape \(2, 3\)", np.zeros((2, 3)))
    refused(trained("mlp").module, "must have equally many samples", (images, images[:1]))
    refused(trained("mlp").module, "not tensors or arrays", "text")
    refused(module(lambda self, x: x.argmax(dim=1)), "no tensor of floating-point numbers")
    refused(module(lambda self, x: "text"), "something else than tensors")
    refused(module(lambda self, x: x if x.sum() > 0 else -x), "cannot export Own", kind=ConversionFailed)
    refused(module(lambda self, x: x.reshape(1, -1)), r"first dimension|one after", kind=InvalidModel)


def test_without_pytorch_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('hidden', name='torch')")
    script = (
        "from converters.sources.pytorch import open_pytorch\n"
        "from fleet.protocol.errors import ConversionFailed\n"
        "try:\n    open_pytorch(object())\n"
        "except ConversionFailed as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert "torch is not installed" in done.stdout
    assert "muster[torch]" in done.stdout
