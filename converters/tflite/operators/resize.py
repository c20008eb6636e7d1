"""Resize: nearest and linear, checked index by index rather than by the names of modes.

TFLite computes the source of output x as below (scale = input / output, or (input - 1) / (output - 1) with
aligned corners); ONNX has a dozen modes with the same names and other roundings.

==================  =========================================  ==============================
options             RESIZE_NEAREST_NEIGHBOR                    RESIZE_BILINEAR
==================  =========================================  ==============================
none                floor(x · scale)                           x · scale
align corners       round(x · scale)                           x · scale
half-pixel centers  floor((x + 0.5) · scale)                   (x + 0.5) · scale - 0.5
==================  =========================================  ==============================

So both sides' sources are computed for the sizes at hand, and an option is taken only if all agree. Nearest
always has a way: the wanted indices themselves, taken by GATHER along each axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.tflite.graph import Tensor
from converters.tflite.layout import Emission, channels_last
from converters.tflite.node import Node
from converters.tflite.operators.elementwise import FLOAT, require_dtype
from converters.tflite.operators.selection import gathered

B = schema.BuiltinOperator
OPTIONS = ((False, False), (True, False), (False, True))
"""Aligned corners, half-pixel centers; the two exclude each other."""


def _resize(emission: Emission, node: Node) -> None:
    require_dtype(emission, node, node.inputs[0], FLOAT)
    mode = node.attribute("mode", "nearest")
    _refuse_variations(node)
    name = node.outputs[0]
    have, want = emission.fact(node.inputs[0]).shape, emission.fact(name).shape
    if len(have) != 4 or have[:2] != want[:2] or mode not in ("nearest", "linear"):
        raise node.unsupported(
            f"only height and width can be resized, by nearest or linear, not {mode!r:.20}"
        )
    scales = _scales(emission, node, have, want)
    sources = [
        _onnx_sources(node, have[axis], want[axis], scale) for axis, scale in zip((2, 3), scales, strict=True)
    ]
    tensor = emission.get(node, node.inputs[0], channels_last(4))
    result = _nearest(emission, node, tensor, want, sources) if mode == "nearest" else None
    if result is None:
        result = _linear(emission, node, tensor, want, sources)
    emission.put(node, result, channels_last(4))


def _refuse_variations(node: Node) -> None:
    if node.has(1) and node.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise node.unsupported("tf_crop_and_resize has no counterpart")
    node.attribute("cubic_coeff_a")
    node.attribute("extrapolation_value")
    if node.attribute("antialias", 0) or node.attribute("exclude_outside", 0):
        raise node.unsupported("antialias and exclude_outside have no counterpart")
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch" or node.attribute("axes"):
        raise node.unsupported("keep_aspect_ratio_policy and axes have no counterpart")


def _scales(
    emission: Emission, node: Node, have: tuple[int, ...], want: tuple[int, ...]
) -> tuple[float, float]:
    """Return output / input for height and width: as given, or from the sizes."""
    if node.has(2) and emission.fact(node.inputs[2]).shape != (0,):
        given = emission.required(node, 2)
        return float(given[2]), float(given[3])
    return want[2] / have[2], want[3] / have[3]


def _onnx_sources(node: Node, size: int, count: int, scale: float) -> NDArray[np.float64]:
    """Return where ONNX looks for each output, before rounding; shape (count,)."""
    mode = node.attribute("coordinate_transformation_mode", "half_pixel")
    x = np.arange(count, dtype=np.float64)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * (size - 1) / (count - 1) if count > 1 else x * 0
    if mode == "pytorch_half_pixel" and count == 1:
        return x * 0
    if mode == "half_pixel_symmetric":
        adjusted = count / (scale * size)
        return size / 2 * (1 - adjusted) + (x + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (x + 0.5) / scale - 0.5
    raise node.unsupported(f"coordinate_transformation_mode is {mode!r:.40}")


def _tflite_sources(size: int, count: int, *, align: bool, half: bool) -> NDArray[np.float64]:
    """Return where TFLite looks for each output; for nearest, half a pixel before rounding down."""
    x = np.arange(count, dtype=np.float64)
    scale = (size - 1) / (count - 1) if align and count > 1 else size / count
    return (x + 0.5) * scale - 0.5 if half else x * scale


def _nearest(
    emission: Emission, node: Node, tensor: Tensor, want: tuple[int, ...], sources: list[NDArray[np.float64]]
) -> Tensor:
    wanted = [
        np.clip(_rounded(node, source), 0, size - 1)
        for source, size in zip(sources, tensor.shape[1:3], strict=True)
    ]
    for align, half in OPTIONS:
        offered = []
        for size, count in zip(tensor.shape[1:3], want[2:], strict=True):
            source = _tflite_sources(size, count, align=align, half=half)
            index = np.floor(source + 0.5) if align or half else np.floor(source)
            offered.append(np.clip(index, 0, size - 1))
        if all(np.array_equal(a, b) for a, b in zip(wanted, offered, strict=True)):
            options = schema.ResizeNearestNeighborOptionsT()
            options.alignCorners, options.halfPixelCenters = align, half
            return _resized(
                emission, node.outputs[0], tensor, want, code=B.RESIZE_NEAREST_NEIGHBOR, options=options
            )
    name = node.outputs[0]
    rows, columns = wanted
    tensor = gathered(emission, tensor, rows, 1, name=f"{name};rows")
    return gathered(emission, tensor, columns, 2, name=name)


def _rounded(node: Node, source: NDArray[np.float64]) -> NDArray[np.float64]:
    mode = node.attribute("nearest_mode", "round_prefer_floor")
    roundings: dict[str, Callable[[Any], Any]] = {
        "round_prefer_floor": lambda s: np.ceil(s - 0.5),
        "round_prefer_ceil": lambda s: np.floor(s + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in roundings:
        raise node.unsupported(f"nearest_mode is {mode!r:.40}")
    return np.asarray(roundings[mode](source))


def _linear(
    emission: Emission, node: Node, tensor: Tensor, want: tuple[int, ...], sources: list[NDArray[np.float64]]
) -> Tensor:
    node.attribute("nearest_mode")
    for align, half in OPTIONS:
        agrees = all(
            np.allclose(
                np.clip(source, 0, size - 1),
                np.clip(_tflite_sources(size, count, align=align, half=half), 0, size - 1),
                rtol=0,
                atol=1e-6,
            )
            for source, size, count in zip(sources, tensor.shape[1:3], want[2:], strict=True)
        )
        if agrees:
            options = schema.ResizeBilinearOptionsT()
            options.alignCorners, options.halfPixelCenters = align, half
            return _resized(emission, node.outputs[0], tensor, want, code=B.RESIZE_BILINEAR, options=options)
    raise node.unsupported("no option of RESIZE_BILINEAR looks at the same places")


def _resized(
    emission: Emission, name: str, tensor: Tensor, want: tuple[int, ...], *, code: int, options: Any
) -> Tensor:
    size = emission.const(f"{name};size", np.array(want[2:], dtype=np.int32))
    shape = (tensor.shape[0], *want[2:], tensor.shape[-1])
    return emission.emit(code, [tensor, size], name, shape, options)


OPERATORS: dict[str, Callable[[Emission, Node], None]] = {"Resize": _resize}
