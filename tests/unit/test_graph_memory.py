"""The estimate of peak memory: by hand on small schedules, and against a real process on a large model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from converters.graphs.memory import onnx_peak_memory_bytes, ort_peak_memory_bytes, peak_memory_bytes
from converters.target import Work
from converters.targets.onnx_fp16 import build as build_fp16
from converters.targets.onnx_int4 import build as build_int4
from converters.targets.onnx_int8 import build as build_int8
from converters.targets.ort import build as build_ort
from tests.support.networks import convolutional, dense, work

MEBIBYTE = 1024**2


def test_a_tensor_lives_from_the_node_that_gives_it_to_the_last_that_takes_it() -> None:
    chain = [(["a"], ["b"]), (["b"], ["c"]), (["c"], ["d"])]
    sizes = {"a": 10, "b": 100, "c": 1000, "d": 1}
    assert peak_memory_bytes(chain, sizes, inputs=["a"], outputs=["d"], weights_bytes=7) == 7 + 1100


def test_a_skipped_connection_is_live_all_the_while() -> None:
    chain = [(["a"], ["b"]), (["b"], ["c"]), (["c", "a"], ["d"])]
    sizes = {"a": 10, "b": 100, "c": 1000, "d": 1}
    assert peak_memory_bytes(chain, sizes, inputs=["a"], outputs=["d"], weights_bytes=0) == 1110


def test_outputs_are_live_to_the_end_and_what_nothing_takes_only_at_its_node() -> None:
    chain = [(["a"], ["early"]), (["a"], ["waste"]), (["a"], ["late"])]
    sizes = {"a": 1, "early": 10, "waste": 100, "late": 50}
    found = peak_memory_bytes(chain, sizes, inputs=["a"], outputs=["early", "late"], weights_bytes=0)
    assert found == 111


def test_tensors_without_a_size_count_nothing() -> None:
    assert (
        peak_memory_bytes([(["a", "w"], ["b"])], {"b": 5}, inputs=["a"], outputs=["b"], weights_bytes=0) == 5
    )


def _wide() -> Work:
    """Return two products, 1,000 to 4,000 to 10 elements, with a ReLU in between."""
    random = np.random.RandomState(0)
    constants = {
        "w1": random.standard_normal((1000, 4000)).astype(np.float32),
        "w2": random.standard_normal((4000, 10)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    samples = random.standard_normal((16, 1000)).astype(np.float32)
    return work(nodes, constants, takes=(1000,), gives=(10,), samples=samples)


WEIGHTS_BYTES = 4 * (1000 * 4000 + 4000 * 10)


def test_a_dense_model_takes_its_weights_and_its_two_widest_neighbours() -> None:
    found = onnx_peak_memory_bytes(_wide().onnx)
    assert WEIGHTS_BYTES + 4 * 8000 <= found < WEIGHTS_BYTES + 4 * 8000 + 200  # and the constants' names


@pytest.mark.parametrize("given", [dense(), convolutional(), _wide()], ids=["dense", "convolutional", "wide"])
def test_the_ort_file_of_a_graph_takes_about_as_much(given: Work) -> None:
    exact = onnx_peak_memory_bytes(given.onnx)
    assert ort_peak_memory_bytes(build_ort(given)) == pytest.approx(exact, rel=0.35)


def test_fewer_bits_take_less() -> None:
    given = _wide()
    exact = onnx_peak_memory_bytes(given.onnx)
    assert onnx_peak_memory_bytes(build_fp16(given)) == pytest.approx(0.5 * exact, rel=0.02)
    assert onnx_peak_memory_bytes(build_int8(given)) == pytest.approx(0.25 * exact, rel=0.02)
    assert onnx_peak_memory_bytes(build_int4(given)) == pytest.approx(
        5.125 / 32 * exact, rel=0.05
    )  # blocks are padded


def test_integers_between_quantized_convolutions_count_as_one_byte_each() -> None:
    """The first convolution gives 16 x 16 x 16 elements, by far the most: the input is 3 x 16 x 16."""
    found = onnx_peak_memory_bytes(build_int8(convolutional()))
    assert found < 4 * 3 * 256 + 2 * 16 * 256 + 5000
    assert onnx_peak_memory_bytes(convolutional().onnx) > 2 * 4 * 16 * 256


CHILD = """
import sys
import numpy, onnxruntime

def resident_bytes():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
batch = {"x": numpy.zeros((1, 1000), dtype=numpy.float32)}
before = resident_bytes()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, batch)
print(resident_bytes() - before)
"""


def test_a_process_grows_by_the_estimate_at_least_and_by_few_times_as_much(tmp_path: Path) -> None:
    """Onnxruntime parses into one copy of the weights and packs another for its kernels."""
    path = tmp_path / "wide.onnx"
    path.write_bytes(_wide().onnx)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    grown = int(child.stdout)
    estimate = onnx_peak_memory_bytes(_wide().onnx)
    assert 0.9 * estimate < grown < 5 * estimate + 8 * MEBIBYTE
