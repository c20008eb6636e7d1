"""What is known of an ONNX tensor, and of a node that has to be emitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.tflite.graph import Shape
from fleet.protocol.errors import UnsupportedOperator

if TYPE_CHECKING:
    import onnx

WAY_OUT = "Keep this model in ONNX, or build it from operators that the TFLite reference page lists."


@dataclass(frozen=True, eq=False)
class Fact:
    """What is known of an ONNX tensor.

    Attributes:
        shape: Its dimensions; a negative one grows with the batch.
        dtype: Element type.
        value: Its contents if they depend neither on any input nor on N, else None.
        from_batch: The contents are known for each N but differ: such a tensor is never written.
    """

    shape: Shape
    dtype: np.dtype[Any]
    value: NDArray[Any] | None = None
    from_batch: bool = False

    @property
    def computed(self) -> bool:
        """Whether the device has to compute it."""
        return self.value is None and not self.from_batch


@dataclass(eq=False)
class Node:
    """One ONNX node that has to be emitted.

    Attributes:
        operator: ONNX's name of the operator.
        name: The node's name, or its first output where it has none.
        inputs: Names of tensors; empty for an input that is left out.
        outputs: Names of tensors; empty for an output that nobody wants.
        opset: Version of the operator set that gives the operator its meaning.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    attributes: dict[str, Any]
    read: set[str] = field(default_factory=set)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value; what is never asked for is refused by `unread`."""
        self.read.add(name)
        return self.attributes.get(name, default)

    def unread(self) -> list[str]:
        """Return the attributes whose meaning nobody looked at."""
        return sorted(self.attributes.keys() - self.read)

    def has(self, index: int) -> bool:
        """Return whether an optional input is there."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def unsupported(self, why: str) -> UnsupportedOperator:
        """Return the error that says why this node has no counterpart."""
        return UnsupportedOperator(
            f"Node {self.name!r:.80} ({self.operator}) cannot be written as TFLite: {why}.", remedy=WAY_OUT
        )


def read_node(proto: onnx.NodeProto, opset: int) -> Node:
    """Return a node with its attributes as Python values."""
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    return Node(
        operator=proto.op_type,
        name=proto.name or next(iter(proto.output), ""),
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        opset=opset,
        attributes={
            name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for name, value in attributes.items()
        },
    )
