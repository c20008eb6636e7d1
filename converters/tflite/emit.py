"""From a float32 ONNX graph to a TFLite file, without TensorFlow.

==================  ========================================================================================
step                where
==================  ========================================================================================
read                `source`: check, fold constants (`fold`), find every shape, with the batch left open
walk                here, node by node, by the table of `operators`; `layout` keeps NCHW and NHWC apart
rewrite             `fuse`: batch norms and transposes into weights, activations into operators
write               `flatbuffer`: tensors, operators under their lowest versions (`versions`), signature
==================  ========================================================================================

A graph is written with exactly its meaning or not at all: an unknown operator, attribute or shape raises
`UnsupportedOperator`. Every tensor keeps its ONNX name; a step towards it is called ``name;step``. Which
nodes an operator does the work of is written beside the graph, for `quantize`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    import onnx

    from converters.tflite.layout import Emission
    from converters.tflite.node import Node


def emit_tflite(model: onnx.ModelProto) -> bytes:
    """Return an ONNX model as TFLite; the same model gives the same bytes.

    Inputs and outputs keep their names, order, element types and order of axes: an image that is (N, C, H, W)
    in ONNX is so in TFLite too. A symbolic batch stays open: the file says 1 in ``shape``, -1 in
    ``shape_signature``, and ``resize_tensor_input`` takes any N.

    Args:
        model: Operator set 13 to 21, core operators on float32, shapes fixed but for the inputs' first
            dimension; weights inside the model.

    Raises:
        UnsupportedOperator: A node has no counterpart; the message names node and operator.
        ConversionFailed: The model is not valid ONNX, has open shapes, or is too large.
    """
    from converters.tflite.flatbuffer import TYPES, write_graph
    from converters.tflite.fuse import fuse
    from converters.tflite.layout import Emission
    from converters.tflite.source import read_source

    emission = Emission(read_source(model))
    for name in emission.source.inputs:
        if (dtype := emission.fact(name).dtype).name not in TYPES:
            raise ConversionFailed(f"Input {name!r:.80} is {dtype}, not one of {', '.join(sorted(TYPES))}.")
    for node in emission.source.nodes:
        _emit_node(emission, node)
    _collect_outputs(emission)
    fuse(emission.graph)
    return write_graph(emission.graph)


def _emit_node(emission: Emission, node: Node) -> None:
    from converters.tflite.flatbuffer import TYPES
    from converters.tflite.operators import OPERATORS

    if node.operator not in OPERATORS:
        raise node.unsupported("there is no counterpart")
    for name in filter(None, (*node.inputs, *node.outputs)):
        fact = emission.fact(name)
        if 0 in fact.shape:
            if fact.value is not None and name in node.inputs:
                continue  # an absent input of old operator sets
            raise node.unsupported(f"tensor {name!r:.80} has no elements")
        if fact.computed and fact.dtype.name not in TYPES:
            raise node.unsupported(
                f"tensor {name!r:.80} is {fact.dtype}, not one of {', '.join(sorted(TYPES))}"
            )
    emission.node = node.name
    OPERATORS[node.operator](emission, node)
    for name in filter(None, node.outputs):
        if not emission.exists(name):
            raise node.unsupported(f"its output {name!r:.80} has no counterpart")
    if unread := node.unread():
        raise node.unsupported(f"its attribute {', '.join(unread)} is not understood")


def _collect_outputs(emission: Emission) -> None:
    """Bring the outputs into their own layout, each to a tensor of its own."""
    from converters.tflite.layout import plain
    from converters.tflite.node import Node

    for name in emission.source.outputs:
        fact = emission.fact(name)
        if not fact.computed:
            raise ConversionFailed(f"Output {name!r:.80} is a constant: it does not depend on any input.")
        node = Node("Identity", name, (name,), (name,), 0, {})
        tensor = emission.get(node, name, plain(len(fact.shape)))
        if tensor in (*emission.graph.inputs.values(), *emission.graph.outputs.values()):
            tensor = emission.copy(tensor, name)
        emission.graph.outputs[name] = tensor
