"""The ORT format: the same bytes every time, for every processor."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from onnx import helper

from converters.graphs.ort_format import canonical, ort_operators
from converters.target import Work
from converters.targets.onnx_fp16 import build as build_fp16
from converters.targets.onnx_int4 import build as build_int4
from converters.targets.onnx_int8 import build as build_int8
from converters.targets.ort import build
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import answers, convolutional, dense, work


@pytest.mark.parametrize("given", [convolutional(), dense()], ids=["convolutional", "dense"])
def test_answers_are_those_of_the_graph(given: Work) -> None:
    np.testing.assert_allclose(answers(build(given), given), answers(given.onnx, given), atol=1e-5)


def test_sorting_what_is_sorted_changes_nothing() -> None:
    built = build(convolutional())
    again = canonical(built)
    assert ort_operators(again) == ort_operators(built)
    np.testing.assert_array_equal(answers(again, convolutional()), answers(built, convolutional()))


def test_a_graph_of_many_operators_gives_the_same_bytes_each_time() -> None:
    """Onnxruntime writes the operators' types in an order that differs from save to save."""
    names = ["Abs", "Neg", "Floor", "Ceil", "Sqrt", "Exp", "Relu", "Tanh", "Sign", "Sin", "Cos", "Identity"]
    tensors = ["x", *(f"t{i}" for i in range(len(names) - 1)), "y"]
    nodes = [helper.make_node(name, [tensors[i]], [tensors[i + 1]], name) for i, name in enumerate(names)]
    given = work(nodes, {}, takes=(4,), gives=(4,), samples=np.eye(4, dtype=np.float32))
    assert len({build(given) for _ in range(8)}) == 1
    np.testing.assert_array_equal(answers(build(given), given), answers(given.onnx, given))


DIGESTS = """
import hashlib, json
from converters.targets.onnx_fp16 import build as fp16
from converters.targets.onnx_int4 import build as int4
from converters.targets.onnx_int8 import build as int8
from converters.targets.ort import build as ort
from tests.support.networks import convolutional, dense
builds = [(fp16, dense), (int4, dense), (int8, dense), (int8, convolutional), (ort, convolutional)]
print(json.dumps([hashlib.sha256(build(given())).hexdigest() for build, given in builds]))
"""


def test_another_process_builds_the_same_bytes() -> None:
    child = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    here = [
        build_fp16(dense()),
        build_int4(dense()),
        build_int8(dense()),
        build_int8(convolutional()),
        build(convolutional()),
    ]
    assert json.loads(child.stdout) == [hashlib.sha256(data).hexdigest() for data in here]


@pytest.mark.parametrize("broken", [b"", b"not a model", b"\x00\x00\x00\x00ORTMxx"])
def test_what_is_no_ort_file_is_refused(broken: bytes) -> None:
    with pytest.raises(ConversionFailed):
        canonical(broken)
