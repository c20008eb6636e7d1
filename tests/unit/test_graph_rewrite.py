"""Rewrites of graphs: other nodes, the same answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from converters.graphs.naming import name_nodes
from converters.graphs.onnx_graph import parsed
from converters.graphs.rewrite import (
    fold_gemm_factors,
    fold_normalization,
    join_biases,
    split_gemms,
    store_constants,
)
from converters.target import Work
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import answers, convolutional, dense, operators, work


def _rewritten(given: Work, *rewrites: Callable[[ModelProto], None]) -> bytes:
    """Return the graph after rewrites, having checked that it is valid and answers as before."""
    graph = parsed(given.onnx)
    for rewrite in rewrites:
        rewrite(graph)
    onnx.checker.check_model(graph, full_check=True)
    data = bytes(graph.SerializeToString())
    np.testing.assert_allclose(answers(data, given), answers(given.onnx, given), rtol=1e-4, atol=1e-4)
    return data


def _constants(model: bytes) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer}


def test_batch_norm_goes_into_the_convolution_before_it() -> None:
    folded = _rewritten(convolutional(), fold_normalization)
    assert "BatchNormalization" not in operators(folded)
    assert not {name for name in _constants(folded) if name.startswith("n")} - {
        "n1_shift_folded",
        "n2_shift_folded",
    }


def test_a_batch_norm_whose_convolution_has_other_uses_stays() -> None:
    random = np.random.RandomState(0)
    constants: dict[str, NDArray[Any]] = {"k": random.standard_normal((4, 4, 1, 1)).astype(np.float32)}
    constants |= {part: random.uniform(0.5, 2, 4).astype(np.float32) for part in ("s", "b", "m", "v")}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "norm"),
        helper.make_node("Add", ["c", "n"], ["y"], "add"),
    ]
    samples = random.standard_normal((3, 4, 2, 2)).astype(np.float32)
    given = work(nodes, constants, takes=(4, 2, 2), gives=(4, 2, 2), samples=samples)
    assert operators(_rewritten(given, fold_normalization)) == ["Conv", "BatchNormalization", "Add"]


def test_gemm_becomes_plain_and_then_products_and_sums() -> None:
    plain = _rewritten(dense(), fold_gemm_factors)
    factors = {a.name for n in onnx.load_from_string(plain).graph.node for a in n.attribute}
    assert factors == {"transB"}
    assert all(value.ndim == 1 for name, value in _constants(plain).items() if "b" in name)
    split = _rewritten(dense(), split_gemms)
    assert "Gemm" not in operators(split)
    assert operators(split).count("MatMul") == operators(split).count("Add") == 3


def test_products_and_sums_become_gemm() -> None:
    joined = _rewritten(dense(), join_biases)
    assert operators(joined).count("Gemm") == 3
    assert not {"MatMul", "Add"} & set(operators(joined))


def test_a_sum_of_what_varies_is_no_bias() -> None:
    constants = {"w": np.eye(4, dtype=np.float32), "b": np.ones((2, 4), dtype=np.float32)}
    product = helper.make_node("MatMul", ["x", "w"], ["h"], "product")
    samples = np.random.RandomState(0).standard_normal((2, 4)).astype(np.float32)
    for added in ("x", "b"):  # a bias of two rows is none either
        nodes = [product, helper.make_node("Add", ["h", added], ["y"], "add")]
        given = work(nodes, constants, takes=(4,), gives=(4,), samples=samples)
        assert operators(_rewritten(given, join_biases)) == ["MatMul", "Add"]


def test_a_product_of_more_than_matrices_is_no_gemm() -> None:
    constants = {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("Add", ["h", "b"], ["y"], "add"),
    ]
    samples = np.random.RandomState(0).standard_normal((2, 3, 4)).astype(np.float32)
    given = work(nodes, constants, takes=(3, 4), gives=(3, 4), samples=samples)
    assert operators(_rewritten(given, join_biases)) == ["MatMul", "Add"]


def test_constant_nodes_become_initializers() -> None:
    value = numpy_helper.from_array(np.full((4, 4), 2, dtype=np.float32), "whatever")
    nodes = [
        helper.make_node("Constant", [], ["w"], "constant", value=value),
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
    ]
    given = work(nodes, {}, takes=(4,), gives=(4,), samples=np.eye(4, dtype=np.float32))
    stored = _rewritten(given, store_constants)
    assert operators(stored) == ["MatMul"]
    assert _constants(stored)["w"].shape == (4, 4)


def test_every_node_gets_a_name_of_its_own() -> None:
    names = ["", "Relu_0", "other", ""]
    tensors = ["x", "a", "b", "c", "y"]
    nodes = [helper.make_node("Relu", [tensors[i]], [tensors[i + 1]], name) for i, name in enumerate(names)]
    given = work(nodes, {}, takes=(4,), gives=(4,), samples=np.eye(4, dtype=np.float32))
    found = [node.name for node in onnx.load_from_string(_rewritten(given, name_nodes)).graph.node]
    assert found[1:3] == ["Relu_0", "other"]  # names that were given stay
    assert len(set(found)) == 4
    assert all(found)


@pytest.mark.parametrize("broken", [b"", b"not a model"])
def test_what_is_no_graph_is_refused(broken: bytes) -> None:
    with pytest.raises(ConversionFailed):
        parsed(broken)
