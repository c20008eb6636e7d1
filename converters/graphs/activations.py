"""What flows through an ONNX graph: every tensor of numbers, as it is while samples are answered.

The graph is run with all its tensors as outputs, a few samples at a time, and each batch is handed on to be
reduced before the next: what is held at once does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.data.batches import in_batches
from converters.data.samples import Inputs
from converters.graphs.onnx_graph import parsed
from converters.graphs.session import onnxruntime_cannot, open_session

BATCH = 32
"""Samples that are run at once: all tensors of these are in memory together."""


class Range(NamedTuple):
    """What values a tensor takes.

    Attributes:
        minimum: Least value; missing values (NaN) do not count.
        maximum: Greatest value.
    """

    minimum: float
    maximum: float


def batches(
    model: bytes, samples: Inputs, *, only: Collection[str] | None = None
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield all floating-point tensors of a graph, inputs included, a batch of samples at a time.

    Args:
        model: The ONNX graph.
        samples: N of them, by the input's name.
        only: Names of the tensors that are wanted, whatever their type; None for all that are floating point.

    Raises:
        ConversionFailed: onnxruntime cannot run the graph.
    """
    exposed, fetched = _exposed(model, only)
    try:
        session = open_session(exposed)
        for batch in in_batches(samples, BATCH):
            found = {name: array for name, array in batch.items() if only is None or name in only}
            found.update(zip(fetched, session.run(fetched, batch) if fetched else (), strict=True))
            yield {name: array for name, array in found.items() if _wanted(array, only)}
    except Exception as error:
        raise onnxruntime_cannot("run the graph on the samples", error) from error


def ranges(model: bytes, samples: Inputs) -> dict[str, Range]:
    """Return the range of every floating-point tensor of a graph over the samples.

    Args:
        model: The ONNX graph.
        samples: N of them, by the input's name.

    Raises:
        ConversionFailed: onnxruntime cannot run the graph.
    """
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    for batch in batches(model, samples):
        for name, array in batch.items():
            known = array[~np.isnan(array)]
            if not known.size:
                continue
            lowest[name] = min(lowest.get(name, np.inf), float(known.min()))
            highest[name] = max(highest.get(name, -np.inf), float(known.max()))
    return {name: Range(lowest[name], highest[name]) for name in lowest}


def histograms(
    model: bytes, samples: Inputs, limits: dict[str, Range], *, bins: int
) -> dict[str, NDArray[np.int64]]:
    """Return how the values of some tensors are spread over their range.

    Args:
        model: The ONNX graph.
        samples: Those over which the ranges were found.
        limits: The wanted tensors and their ranges.
        bins: Number of bins of equal width between minimum and maximum.

    Returns:
        For each tensor counts, shape (bins,).

    Raises:
        ConversionFailed: onnxruntime cannot run the graph.
    """
    counts = {name: np.zeros(bins, dtype=np.int64) for name in limits}
    for batch in batches(model, samples, only=limits.keys()):
        for name, array in batch.items():
            between = (limits[name].minimum, limits[name].maximum)
            counts[name] += np.histogram(array[~np.isnan(array)], bins=bins, range=between)[0]
    return counts


def _exposed(model: bytes, only: Collection[str] | None) -> tuple[bytes, list[str]]:
    """Return the graph with its tensors as outputs, and the names of those that are to be fetched."""
    from onnx import ValueInfoProto

    graph = parsed(model)
    outputs = {value.name for value in graph.graph.output}
    made = [name for node in graph.graph.node for name in node.output if name]
    fetched = [name for name in made if only is None or name in only]
    graph.graph.output.extend(ValueInfoProto(name=name) for name in fetched if name not in outputs)
    return graph.SerializeToString(), fetched


def _wanted(array: object, only: Collection[str] | None) -> bool:
    """Return whether this is a tensor, not a list or map, and one that was asked for."""
    return isinstance(array, np.ndarray) and (only is not None or array.dtype.kind == "f")
