"""The embedding head: a few numbers for each sample that say what a layer of the model makes of it.

::

    input ─ … ─ layer ─ … ─ product ─ … ─ outputs          what everybody is answered with, as before
                  │
                  └─ [mean over rows and columns] ─ Gemm ─ drift_embedding, (N, K)

Nobody is answered with them: devices count them for drift (`fleet.drift.embedding`). The head is part of the
graph that all variants are built from, so it comes with the run that answers. It stays float in int8.

The Gemm is a projection on the K principal components of the layer on the calibration samples, each brought
to mean 0 and standard deviation 1 there (Jolliffe, "Principal Component Analysis", 2nd edition 2002, sections
1.1 and 3.5). Components, rather than random directions: most random projections of data in many dimensions
look normal, whatever the data (Diaconis and Freedman, "Asymptotics of graphical projection pursuit", Annals
of Statistics 12, 1984), so that shifts hide in them; and components with their known spread give one unit for
what quantization may change. A component whose deviation is less than `LEAST_SPREAD` of the first one's is
left out: what it would show is rounding.

They are fitted on the calibration samples, and the reference is counted on those held out: fitted ones look
wider than they are.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs, evenly_spaced
from converters.graphs.activations import batches
from converters.graphs.naming import name_nodes
from converters.graphs.onnx_graph import add_constant, initializers, parsed, taken
from converters.graphs.rewrite import store_constants
from converters.graphs.tidy import value_info
from converters.source import Source
from converters.targets.onnx_int8 import quantizable
from fleet.drift.embedding import MAX_COMPONENTS
from fleet.protocol.errors import ConversionFailed, InvalidInput
from fleet.protocol.manifest import Tensor

if TYPE_CHECKING:
    from onnx import ModelProto

EMBEDDING = "drift_embedding"
"""Name of the output, and of the node that gives it."""
AUTO = "auto"
"""Stands for what the last product before the first output takes: the penultimate activation, mostly."""
DEFAULT_COMPONENTS = 4
FITTED_SAMPLES = 1024
"""Most calibration samples that components are found from."""
MAX_WIDTH = 4096
"""Most numbers of the layer, for each sample, that are projected."""
LEAST_SPREAD = 0.03

_COUNTED = re.compile(rf"(.+):([1-{MAX_COMPONENTS}])", re.DOTALL)
_SHOWN = 20


class Wanted(NamedTuple):
    """What is to be projected.

    Attributes:
        tensor: Name of the tensor in the graph.
        components: To how many numbers, at most.
    """

    tensor: str
    components: int


def with_embedding(source: Source, wanted: str, calibration: Inputs | None) -> Source:
    """Return a source whose graph has the head, and whose signature says so.

    Args:
        source: The model; it is left as it is.
        wanted: Name of a float32 tensor of its graph of the shape (N, D) or (N, C, H, W), or `AUTO`; behind
            it may stand ``:`` and how many components there are to be at most, 1 to `MAX_COMPONENTS`.
        calibration: Samples that the components are found from.

    Raises:
        InvalidInput: The source has no graph to put it into, there are no samples, or no such tensor.
        ConversionFailed: The tensor does not vary, or cannot be projected.
    """
    if source.onnx is None or source.precision != "fp32":
        raise InvalidInput(
            f"{source.name} is packed as it is, so that no embedding can be added to it.",
            remedy="Convert the model that it was made from.",
        )
    if calibration is None:
        raise InvalidInput(
            "The components of an embedding are found from calibration samples, and there are none.",
            remedy="Give a dataset to calibrate with (--calibrate).",
        )
    model = parsed(source.onnx)
    asked = read_wanted(wanted, model, source.signature.outputs[0].name)
    values = _values(source, asked.tensor, evenly_spaced(calibration, FITTED_SAMPLES))
    weights, bias = principal_components(_pooled(values), asked.components)
    tensor = Tensor(EMBEDDING, "float32", (source.signature.outputs[0].shape[0], len(bias)))
    _add_head(model, asked.tensor, tensor, weights, bias, pooled=values.ndim == 4)
    return replace(
        source,
        onnx=model.SerializeToString(deterministic=True),
        signature=msgspec.structs.replace(source.signature, embedding=tensor),
    )


def read_wanted(text: str, model: ModelProto, output: str) -> Wanted:
    """Return which tensor is meant, and how many components.

    A tensor whose own name ends like a number of components is meant by its whole name.

    Args:
        text: As `with_embedding` takes it.
        model: The graph.
        output: Name of its first output.

    Raises:
        InvalidInput: There is no such tensor; the remedy lists some that there are.
    """
    made = [name for node in model.graph.node for name in node.output if name]
    constants = initializers(model.graph)
    known = {*made, *(value.name for value in model.graph.input if value.name not in constants)}
    counted = _COUNTED.fullmatch(text)
    name, components = text, DEFAULT_COMPONENTS
    if counted and text not in known:
        name, components = counted[1], int(counted[2])
    if name == AUTO and AUTO not in known:
        name = _penultimate(model, output)
    if name not in known:
        raise InvalidInput(
            f"The model has no tensor {name!r:.80}.",
            remedy=f"Name one, such as {', '.join(made[-_SHOWN:]):.1000}, or {AUTO}; behind it, if need be, a"
            f" colon and 1 to {MAX_COMPONENTS} components.",
        )
    return Wanted(name, components)


def principal_components(
    values: NDArray[np.floating], components: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the projection on principal components of standard deviation 1: values @ weights + bias.

    The sign of a component is such that the largest of its weights is positive.

    Args:
        values: Shape (N, D), finite.
        components: Most that are wanted.

    Returns:
        Weights of shape (D, K) and the bias of shape (K,).

    Raises:
        ConversionFailed: The values do not vary.
    """
    centred = values.astype(np.float64)
    mean = centred.mean(axis=0)
    centred -= mean
    _, spreads, directions = np.linalg.svd(centred, full_matrices=False)
    deviations = spreads / np.sqrt(max(len(centred) - 1, 1))
    if not deviations[0] > np.finfo(np.float32).eps * max(1.0, float(np.abs(mean).max())):
        raise ConversionFailed(
            "The tensor for the embedding is the same for all calibration samples.",
            remedy="Name another one, or give samples that differ.",
        )
    kept = int(np.count_nonzero(deviations[:components] >= LEAST_SPREAD * deviations[0]))
    chosen = directions[:kept]
    largest = np.abs(chosen).argmax(axis=1)
    chosen = chosen * np.sign(chosen[np.arange(kept), largest])[:, None]
    weights = (chosen / deviations[:kept, None]).T
    return weights.astype(np.float32), (-mean @ weights).astype(np.float32)


def _penultimate(model: ModelProto, output: str) -> str:
    """Return the tensor that the last product with constant weights takes, of those before the output."""
    copy = parsed(model.SerializeToString())
    name_nodes(copy)
    store_constants(copy)
    products = {node.name for node in quantizable(copy)}
    reached = {output}
    for node in reversed(copy.graph.node):  # in topological order
        if reached.isdisjoint(node.output):
            continue
        if node.name in products:
            return str(node.input[0])
        reached.update(taken(node))
    raise InvalidInput(
        "The model has no product with constant weights, of which the input could be its embedding.",
        remedy="Name a tensor.",
    )


def _values(source: Source, name: str, samples: Inputs) -> NDArray[Any]:
    """Return a tensor on the samples, shape (N, D) or (N, C, H, W).

    Raises:
        InvalidInput: It is no such tensor.
        ConversionFailed: The graph cannot be run, or the tensor is not finite.
    """
    assert source.onnx is not None
    count = len(next(iter(samples.values())))
    found = [batch[name] for batch in batches(source.onnx, samples, only={name}) if name in batch]
    shapes = {array.shape[1:] for array in found}
    sizes = next(iter(shapes), ())
    kind = found[0].dtype if found else "nothing"
    fits = len(shapes) == 1 and len(sizes) in {1, 3} and sum(map(len, found)) == count and kind == np.float32
    if not fits or not 1 <= sizes[0] <= MAX_WIDTH:
        raise InvalidInput(
            f"Tensor {name!r:.80} is {kind} of the shape {(count, *sizes)}: no embedding can be made of it.",
            remedy=f"Name one of float32 of the shape (N, D) or (N, C, H, W), D and C at most {MAX_WIDTH}.",
        )
    values = np.concatenate(found)
    if not np.isfinite(values).all():
        raise ConversionFailed(f"Tensor {name!r:.80} has values that are not finite.")
    return values


def _pooled(values: NDArray[Any]) -> NDArray[Any]:
    return values.mean(axis=(2, 3), dtype=np.float64) if values.ndim == 4 else values


def _add_head(
    model: ModelProto,
    name: str,
    embedding: Tensor,
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    *,
    pooled: bool,
) -> None:
    """Add the nodes of the head and its output to a graph.

    Raises:
        ConversionFailed: The graph has tensors of these names already, or is not valid with them.
    """
    from onnx import checker, helper

    graph = model.graph
    constants = initializers(graph)
    names = {*constants, *(value.name for value in graph.input)}
    names.update(each for node in graph.node for each in (node.name, *node.output))
    if any(each.startswith(EMBEDDING) for each in names):
        raise ConversionFailed(f"The model has a tensor {EMBEDDING} of its own.")
    if pooled:
        averaged, flat = f"{EMBEDDING}_averaged", f"{EMBEDDING}_flat"
        graph.node.append(helper.make_node("GlobalAveragePool", [name], [averaged], averaged))
        graph.node.append(helper.make_node("Flatten", [averaged], [flat], flat))
        name = flat
    inputs = [
        name,
        add_constant(graph, f"{EMBEDDING}.1", weights, constants),
        add_constant(graph, f"{EMBEDDING}.2", bias, constants),
    ]
    graph.node.append(helper.make_node("Gemm", inputs, [EMBEDDING], EMBEDDING))
    graph.output.append(value_info(embedding))
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        raise ConversionFailed(f"With an embedding the model is not valid ONNX: {error}.") from error
