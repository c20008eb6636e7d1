"""What flows through a graph: ranges and histograms over all samples."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from converters.graphs.activations import BATCH, batches, histograms, ranges
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import answers, dense, work


def test_ranges_are_those_of_all_samples_whatever_the_batches() -> None:
    given = dense()
    features = given.samples()["x"]
    assert len(features) % BATCH  # the last batch is smaller
    found = ranges(given.onnx, given.samples())
    outputs = answers(given.onnx, given)
    assert found["x"].minimum == features.min()
    assert found["y"].maximum == pytest.approx(outputs.max(), abs=1e-5)
    assert set(found) == {"x", "centred", "scaled", "g1", "r1", "g2", "r2", "m3", "y"}
    counts = histograms(given.onnx, given.samples(), {"r1": found["r1"]}, bins=64)["r1"]
    assert counts.sum() == len(features) * 64
    assert counts[0] == counts.max()  # what a ReLU cuts off


def test_missing_values_do_not_count() -> None:
    node = helper.make_node("Identity", ["x"], ["y"], "same")
    samples = np.array([[1.0, np.nan], [3.0, -2.0]], dtype=np.float32)
    given = work([node], {}, takes=(2,), gives=(2,), samples=samples)
    found = ranges(given.onnx, {"x": samples})["y"]
    assert (found.minimum, found.maximum) == (-2.0, 3.0)
    shown = [batch["y"] for batch in batches(given.onnx, {"x": samples}, only={"y"})]
    np.testing.assert_array_equal(np.concatenate(shown), samples)


def test_a_graph_that_cannot_be_run_is_refused() -> None:
    with pytest.raises(ConversionFailed, match="cannot run"):
        ranges(dense().onnx, {"x": np.zeros((2, 3), dtype=np.float32)})
