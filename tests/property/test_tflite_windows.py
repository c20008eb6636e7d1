"""Convolutions and pools of any kernel, stride, pad, dilation and group answer as in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, helper, shape_inference

from converters.tflite.emit import emit_tflite
from converters.tflite.run import TfliteSession
from fleet.protocol.errors import UnsupportedOperator
from tests.support.tflite_graphs import TOLERANCE, graph, onnx_answers, samples, weights
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

SMALL = st.integers(1, 3)


@st.composite
def windows(draw: st.DrawFn, *, rank: int, dilated: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return spatial sizes, and the attributes of a window that fits them."""
    sizes, kernel = (
        tuple(draw(st.integers(low, high)) for _ in range(rank)) for low, high in ((1, 9), (1, 4))
    )
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": tuple(draw(SMALL) for _ in range(rank)),
    }
    scheme = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "pads"]))
    dilated = dilated and not scheme.startswith("SAME")  # onnxruntime does not take both
    dilations = tuple(draw(SMALL) if dilated else 1 for _ in range(rank))
    if dilated:
        attributes["dilations"] = dilations
    pads = (0,) * 2 * rank
    if scheme == "pads":
        pads = tuple(draw(st.integers(0, size - 1)) for size in kernel * 2)
        attributes["pads"] = pads
    else:
        attributes["auto_pad"] = scheme
    if not scheme.startswith("SAME"):
        reach = [
            (k - 1) * d + 1 - before - after
            for k, d, before, after in zip(kernel, dilations, pads[:rank], pads[rank:], strict=True)
        ]
        assume(all(size >= needed for size, needed in zip(sizes, reach, strict=True)))
    return sizes, attributes


def _is_as_in_onnx(model: ModelProto) -> None:
    session = TfliteSession(emit_tflite(model))
    for batch in (1, 3):
        inputs = samples(model, batch, seed=batch)
        wanted = onnx_answers(model, inputs)["y"]
        np.testing.assert_allclose(session.run(inputs)["y"], wanted, rtol=TOLERANCE, atol=TOLERANCE)


@settings(max_examples=examples(150), deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 2), SMALL, SMALL, SMALL)
def test_convolution(data: st.DataObject, rank: int, groups: int, inputs: int, outputs: int) -> None:
    sizes, attributes = data.draw(windows(rank=rank, dilated=True))
    shape = (groups * outputs, inputs, *attributes["kernel_shape"])
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups, **attributes)
    constants = {"w": weights(1, *shape), "b": weights(2, groups * outputs)}
    _is_as_in_onnx(graph([node], {"x": ("N", groups * inputs, *sizes)}, constants))


@settings(max_examples=examples(150), deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 2), SMALL, SMALL, SMALL)
def test_transposed_convolution(
    data: st.DataObject, rank: int, groups: int, inputs: int, outputs: int
) -> None:
    sizes, attributes = data.draw(windows(rank=rank, dilated=True))
    attributes.pop("auto_pad", None)
    attributes["output_padding"] = tuple(
        data.draw(st.integers(0, stride - 1)) for stride in attributes["strides"]
    )
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], group=groups, **attributes)
    shape = (groups * inputs, outputs, *attributes["kernel_shape"])
    constants = {"w": weights(1, *shape), "b": weights(2, groups * outputs)}
    model = graph([node], {"x": ("N", groups * inputs, *sizes)}, constants)
    assume(_has_elements(model))
    _is_as_in_onnx(model)


@settings(max_examples=examples(150), deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 2), st.booleans(), st.booleans(), st.booleans())
def test_pool(data: st.DataObject, rank: int, average: bool, ceil: bool, include: bool) -> None:
    sizes, attributes = data.draw(windows(rank=rank, dilated=False))
    if ceil:
        assume("auto_pad" not in attributes)  # ONNX leaves open what both together mean
        attributes["ceil_mode"] = 1
    if attributes.get("auto_pad", "").startswith("SAME"):  # onnxruntime computes pads that it then refuses
        assume(all(s <= k for s, k in zip(attributes["strides"], attributes["kernel_shape"], strict=True)))
    if average:
        attributes["count_include_pad"] = int(include)
    node = helper.make_node("AveragePool" if average else "MaxPool", ["x"], ["y"], **attributes)
    try:
        _is_as_in_onnx(graph([node], {"x": ("N", 2, *sizes)}))
    except UnsupportedOperator as error:
        assert "outside of its input" in str(error)


def _has_elements(model: ModelProto) -> bool:
    inferred = shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
    return all(dim.dim_value > 0 for dim in inferred.dim[1:])
