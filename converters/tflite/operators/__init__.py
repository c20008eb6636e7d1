"""Which ONNX operators have a counterpart, and the function that writes each.

A family of operators is one file with one table. A function takes the emission and the node, reads every
attribute that it understands (`converters.tflite.emit` refuses a node with any other), emits, and puts its
result. It raises UnsupportedOperator, through `Node.unsupported`, rather than write anything inexact.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.tflite.layout import Emission
from converters.tflite.node import Node
from converters.tflite.operators import (
    activation,
    convolution,
    elementwise,
    normalization,
    pooling,
    product,
    reduction,
    resize,
    selection,
    shape,
    transposed,
)

OPERATORS: dict[str, Callable[[Emission, Node], None]] = {
    name: function
    for family in (
        activation,
        convolution,
        elementwise,
        normalization,
        pooling,
        product,
        reduction,
        resize,
        selection,
        shape,
        transposed,
    )
    for name, function in family.OPERATORS.items()
}
