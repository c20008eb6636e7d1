"""Every way in which an ``.onnx`` file can be unusable is a typed error: what, where, and the way out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.sources import onnx_reading
from converters.sources.onnx_file import open_onnx
from fleet.protocol.errors import InvalidModel, MusterError, NotFound, UnsupportedOperator
from tests.support.onnx_models import cnn, model, saved, single, value

WEIGHTS = np.arange(16, dtype=np.float32).reshape(4, 4)


def _refusal(path: Path, kind: type[MusterError] = InvalidModel) -> str:
    with pytest.raises(kind) as caught:
        open_onnx(path, task="regression")
    assert type(caught.value) is kind
    assert path.name in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "no file" in _refusal(tmp_path / "m.onnx", NotFound)


def test_a_folder_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    assert stat.S_ISFIFO((tmp_path / "pipe.onnx").stat().st_mode)
    for name in ("folder.onnx", "pipe.onnx"):
        assert "is not a file" in _refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"not a model at all", "not an ONNX model"),
        (b"\x08\x08", "no graph"),
        (cnn().SerializeToString()[:1000], "not an ONNX model, or damaged"),
        (b"\x20\x00\x00\x00ORTM" + bytes(100), ".ort"),
    ],
)
def test_bytes_that_are_no_model(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    assert told in _refusal(tmp_path / "m.onnx")


def test_a_file_cut_off_behind_the_graph_lacks_its_operator_set(tmp_path: Path) -> None:
    graph = cnn()
    graph.ClearField("opset_import")
    assert "operator set" in _refusal(saved(tmp_path / "m.onnx", graph))


def test_a_model_beyond_protobufs_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as stream:
        stream.truncate(2 * 1024**3)  # a hole: it takes no space
    assert "2147483648 bytes" in _refusal(tmp_path / "m.onnx")


def _outside(path: Path, location: str, **entries: int) -> Path:
    """Write a model whose weights are said to be in another file."""
    graph = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", ["n", 4])],
        [value("y", ["n", 4])],
        {"w": WEIGHTS},
    )
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(text))
    return saved(path, graph)


@pytest.mark.parametrize(
    "location", ["../w.bin", "a/../../w.bin", "/etc/hostname", "..\\w.bin", "", "w\0.bin"]
)
def test_weights_outside_the_folder_are_never_opened(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "models").mkdir()
    told = _refusal(_outside(tmp_path / "models" / "m.onnx", location))
    assert "'w'" in told
    assert "not a path inside the model's folder" in told


def test_a_link_that_leads_out_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    models = tmp_path / "models"
    models.mkdir()
    (models / "link.bin").symlink_to(tmp_path / "w.bin")
    assert "leads out" in _refusal(_outside(models / "m.onnx", "link.bin"))
    (models / "real.bin").write_bytes(WEIGHTS.tobytes())
    (models / "near.bin").symlink_to(models / "real.bin")
    source = open_onnx(_outside(models / "m.onnx", "near.bin"), task="regression")
    np.testing.assert_array_equal(source.answer({"x": np.eye(4, dtype=np.float32)}), WEIGHTS)


def test_missing_weights_and_a_loop_of_links(tmp_path: Path) -> None:
    assert "which is not there" in _refusal(_outside(tmp_path / "m.onnx", "w.bin"))
    (tmp_path / "a.bin").symlink_to(tmp_path / "b.bin")
    (tmp_path / "b.bin").symlink_to(tmp_path / "a.bin")
    assert "cannot be read" in _refusal(_outside(tmp_path / "m.onnx", "a.bin"))


@pytest.mark.parametrize(
    "entries",
    [{"offset": 8}, {"offset": -8}, {"length": 32}, {"length": 10**15}, {"offset": 2**70}, {"length": -1}],
)
def test_a_place_that_the_data_file_does_not_have(tmp_path: Path, entries: dict[str, int]) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert "needs 64 bytes" in _refusal(_outside(tmp_path / "m.onnx", "w.bin", **entries))


def test_a_place_that_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    path = _outside(tmp_path / "m.onnx", "w.bin", offset=0)
    path.write_bytes(path.read_bytes().replace(b"\x0a\x06offset\x12\x010", b"\x0a\x06offset\x12\x01x"))
    assert "no usable place" in _refusal(path)


def test_many_tensors_in_one_place_are_counted_before_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _outside(tmp_path / "m.onnx", "w.bin")
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    graph = onnx.load_model(str(path), load_external_data=False)
    for number in range(100):
        graph.graph.initializer.add().CopyFrom(graph.graph.initializer[0])
        graph.graph.initializer[-1].name = f"w{number}"
    saved(path, graph)
    monkeypatch.setattr(onnx_reading, "MAX_MODEL_SIZE_BYTES", path.stat().st_size + 100 * 64)
    assert f"{101 * 64} bytes of weights" in _refusal(path)


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        (single("Relu", domain="my.own"), ["'only'", "my.own"]),
        (single("Conv", domain="com.microsoft.nchwc"), ["'only'", "nchwc", "ORT_ENABLE_EXTENDED"]),
        (single("EPContext", domain="com.microsoft"), ["'only'", "EPContext", "before optimizing"]),
    ],
)
def test_operators_that_devices_do_not_have(tmp_path: Path, graph: onnx.ModelProto, told: list[str]) -> None:
    message = _refusal(saved(tmp_path / "m.onnx", graph), UnsupportedOperator)
    assert all(text in message for text in told)


def test_an_operator_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperator, match=r"node 'only' \(NoSuchOperator\) in m\.onnx"):
        open_onnx(saved(tmp_path / "m.onnx", single("NoSuchOperator")))
    unknown = single("NoSuchOperator", domain="com.microsoft")
    assert "onnxruntime" in _refusal(saved(tmp_path / "m.onnx", unknown))


def test_chance_and_training_are_refused_by_node(tmp_path: Path) -> None:
    assert "'only' (RandomNormalLike) draws" in _refusal(
        saved(tmp_path / "m.onnx", single("RandomNormalLike"))
    )
    dropout = model(
        [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"], name="drop")],
        [value("x", ["n", 4])],
        [value("y", ["n", 4])],
        {"ratio": np.array(0.5, dtype=np.float32), "training": np.array(True)},
    )
    assert "'drop' (Dropout) is in training mode" in _refusal(saved(tmp_path / "m.onnx", dropout))


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (["n", "width"], r"make_dynamic_shape_fixed --dim_param width --dim_value SIZE"),
        (["n", None], "--input_name x"),
        (["n", 0], "dimension 1 of input 'x' is open"),
        ([], "single number without a dimension for the batch"),
        (None, "has no shape"),
        (["n", 2**40], "more elements than"),
    ],
)
def test_shapes_that_are_open_or_impossible(tmp_path: Path, shape: Any, told: str) -> None:
    graph = single("Relu", shape=shape, out=None)
    if shape is None:
        graph.graph.input[0].type.tensor_type.ClearField("shape")
    assert told in _refusal(saved(tmp_path / "m.onnx", graph))


def test_inputs_with_different_fixed_batches(tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        [value("a", [2, 4]), value("b", [4, 3])],
        [value("y", [2, 3])],
    )
    assert "fixed to different sizes ([2, 4])" in _refusal(saved(tmp_path / "m.onnx", graph))


def _sequence_input() -> onnx.ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 4]))
    node = helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)
    return model([node], [helper.make_value_info("x", kind)], [value("y", None)])


def _without_inputs() -> onnx.ModelProto:
    node = helper.make_node("Neg", ["w"], ["y"])
    return model([node], [], [value("y", [4, 4])], {"w": WEIGHTS})


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (_sequence_input, "input 'x' is a sequence"),
        (_without_inputs, "takes no inputs"),
        (lambda: single("Cast", to=TensorProto.INT64, out=("n", 4)), "no output of floating-point numbers"),
        (
            lambda: single("Transpose", perm=[1, 0], out=(4, "n")),
            "first dimension is not the batch|one after",
        ),
    ],
)
def test_inputs_and_outputs_that_no_bundle_can_have(
    tmp_path: Path, build: Callable[[], onnx.ModelProto], told: str
) -> None:
    graph = build()
    if graph.graph.node[0].op_type == "Cast":
        graph.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(InvalidModel, match=told):
        open_onnx(saved(tmp_path / "m.onnx", graph))


def test_functions_that_explode_or_never_end_are_counted_before_they_are_written_out(tmp_path: Path) -> None:
    core = helper.make_opsetid("", 17)
    mine = helper.make_opsetid("mine", 1)

    def function(name: str, calls: str, domain: str, times: int) -> onnx.FunctionProto:
        steps = [f"s{number}" for number in range(times)]
        nodes = [
            helper.make_node(calls, [before], [after], domain=domain)
            for before, after in zip(["a", *steps], [*steps, "b"], strict=True)
        ]
        return helper.make_function("mine", name, ["a"], ["b"], nodes, [core, mine])

    levels = [function("F0", "Relu", "", 9)] + [
        function(f"F{i}", f"F{i - 1}", "mine", 9) for i in range(1, 9)
    ]
    call = helper.make_node("F8", ["x"], ["y"], domain="mine")
    ends = [value("x", ["n", 4])], [value("y", ["n", 4])]
    bomb = model([call], *ends, domains={"mine": 1}, functions=levels)
    assert bomb.ByteSize() < 10_000
    assert f"{10**9} nodes" in _refusal(saved(tmp_path / "m.onnx", bomb))
    endless = model([call], *ends, domains={"mine": 1}, functions=[function("F8", "F8", "mine", 1)])
    assert "call each other" in _refusal(saved(tmp_path / "m.onnx", endless))


def test_a_graph_that_fails_when_it_runs(tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", ["n", 4])],
        [value("y", ["a", "b"])],
        {"shape": np.array([7, 7])},
    )
    assert "fails on a batch of x (1, 4)" in _refusal(saved(tmp_path / "m.onnx", graph))
