"""The TFLite graph that the emitter builds: tensors, operators, and nothing of the file format.

A dimension is written as a whole number that is not zero. A positive one is that size. A negative one grows
with the batch: -3 is 3·N. Products keep that meaning (4 · -1 is 4·N), so a shape can be computed once for
every N. The file says the same as two vectors: ``shape`` at N = 1 and ``shape_signature`` with -1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(eq=False)
class Tensor:
    """One tensor of the TFLite graph.

    Attributes:
        name: Unique within the graph once it is written.
        shape: Its dimensions; a negative one grows with the batch.
        dtype: Element type.
        value: The contents of a constant, else None.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    value: NDArray[Any] | None = None


@dataclass(eq=False)
class Operator:
    """One operator of the TFLite graph.

    Attributes:
        code: Its ``BuiltinOperator``.
        inputs: What it reads; None for an optional input that is absent.
        outputs: What it writes.
        options: Its options table in the schema's object API, or None.
        nodes: Names of the ONNX nodes that it does the work of.
    """

    code: int
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: Any = None
    nodes: list[str] = field(default_factory=list)

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]


@dataclass
class Graph:
    """The model: operators in the order in which they run.

    Attributes:
        inputs: By name, as the caller gives them.
        outputs: By name, as the caller gets them.
        operators: Every operator after those whose outputs it reads.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor once: inputs, then as the operators meet them."""
        seen: set[int] = set()
        for tensor in self._mentioned():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor

    def _mentioned(self) -> Iterator[Tensor]:
        yield from self.inputs.values()
        for operator in self.operators:
            yield from (tensor for tensor in operator.inputs if tensor is not None)
            yield from operator.outputs
        yield from self.outputs.values()


def at_batch_one(shape: Shape) -> Shape:
    """Return the sizes for N = 1."""
    return tuple(abs(size) for size in shape)


def signature(shape: Shape) -> Shape:
    """Return the shape with -1 for every dimension that grows with the batch."""
    return tuple(size if size > 0 else -1 for size in shape)
