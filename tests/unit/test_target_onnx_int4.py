"""Weights in 4 bits: their layout, every form of product, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from converters.targets.onnx_int4 import BLOCK, Blocks, build, quantized_blocks
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import answers, convolutional, dense, operators, relative_error, work


def _dequantized(blocks: Blocks, inputs: int) -> NDArray[np.float32]:
    """Return the weights that a runtime computes with, as the operator's documentation defines them."""
    outputs, count, _ = blocks.packed.shape
    levels = np.stack([blocks.packed & 15, blocks.packed >> 4], axis=-1).reshape(outputs, count, BLOCK)
    zeros = blocks.zero_points.reshape(outputs, -1)
    zeros = np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(outputs, -1)[:, :count]
    scales = blocks.scales.reshape(outputs, count)
    values = (levels.astype(np.float32) - zeros[:, :, None]) * scales[:, :, None]
    return np.ascontiguousarray(values.reshape(outputs, -1)[:, :inputs].T)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 48), (96, 40), (200, 31), (33, 64)])
def test_onnxruntime_reads_the_blocks_as_they_were_written(inputs: int, outputs: int) -> None:
    random = np.random.RandomState(inputs)
    weights = random.standard_normal((inputs, outputs)).astype(np.float32)
    samples = random.standard_normal((16, inputs)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "only")
    given = work([node], {"w": weights}, takes=(inputs,), gives=(outputs,), samples=samples)
    expected = samples @ _dequantized(quantized_blocks(weights), inputs)
    np.testing.assert_allclose(answers(build(given), given), expected, atol=1e-4)


def test_each_weight_is_off_by_half_a_step_of_its_block_at_most() -> None:
    random = np.random.RandomState(0)
    weights = random.standard_normal((100, 20)).astype(np.float32) * np.geomspace(
        1e-3, 1e3, 20, dtype=np.float32
    )
    weights[:, 7] = 0.0
    weights[:, 8] = np.abs(weights[:, 8])
    blocks = quantized_blocks(weights)
    steps = np.repeat(blocks.scales.reshape(20, -1), BLOCK, axis=1)[:, :100].T
    # Half a step for the weight, half a step for the zero point.
    assert (np.abs(_dequantized(blocks, 100) - weights) <= steps * 1.001).all()
    assert not _dequantized(blocks, 100)[:, 7].any()


def test_gemm_of_every_form_becomes_4_bit() -> None:
    int4 = build(dense())
    assert operators(int4).count("MatMulNBits") == 3
    assert not {"Gemm", "MatMul"} & set(operators(int4))
    assert relative_error(int4, dense()) < 0.12
    assert len(int4) < 0.25 * len(dense().onnx)


def test_a_gemm_that_transposes_and_scales_what_varies_keeps_its_meaning() -> None:
    random = np.random.RandomState(5)
    constants = {
        "w": random.standard_normal((64, 64)).astype(np.float32),
        "two": np.full(1, 2, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0]),
        helper.make_node("Mul", ["x", "two"], ["c"], "double"),
        helper.make_node("Gemm", ["t", "w", "c"], ["y"], "only", transA=1, alpha=0.5, beta=-1.5),
    ]
    samples = random.standard_normal((64, 64)).astype(np.float32)
    given = work(nodes, constants, takes=(64,), gives=(64,), samples=samples)
    int4 = build(given)
    assert "MatMulNBits" in operators(int4)
    assert relative_error(int4, given) < 0.12


def test_layers_that_share_weights_still_share_them() -> None:
    weights = {"w": np.random.RandomState(6).standard_normal((64, 64)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "w"], ["y"], "second"),
    ]
    given = work(nodes, weights, takes=(64,), gives=(64,), samples=np.eye(64, dtype=np.float32))
    int4 = build(given)
    assert operators(int4) == ["MatMulNBits", "MatMulNBits"]
    assert len(onnx.load_from_string(int4).graph.initializer) == 3


def test_layers_that_are_to_stay_float_do() -> None:
    int4 = build(replace(dense(), keep_float=frozenset({"dense2"})))
    assert operators(int4).count("MatMulNBits") == 2
    assert operators(int4).count("MatMul") == 1


def test_convolutions_alone_are_refused() -> None:
    with pytest.raises(ConversionFailed, match="change nothing"):
        build(replace(convolutional(), keep_float=frozenset({"dense"})))


def test_a_model_that_would_grow_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "only")
    with pytest.raises(ConversionFailed, match="a loss"):
        build(work([node], {"w": np.ones((3, 2), dtype=np.float32)}, takes=(3,), gives=(2,)))
