"""What rounding and memory of a TFLite model depend on, read from its flatbuffer.

The file must have passed `converters.tflite.inspect.inspect_tflite`: the schema's accessors check nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.memory import peak_memory_bytes
from converters.runtimes.rounding import noisy

_ITEM_SIZE_BYTES = {"FLOAT32": 4, "INT32": 4, "UINT32": 4, "FLOAT16": 2, "INT16": 2, "INT64": 8, "FLOAT64": 8}
"""By element type; 1 for all others that occur."""


class TfliteGraph:
    """The first graph of a model.

    Args:
        model: The bytes of a file that was inspected.
    """

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._model = schema.Model.GetRootAs(bytearray(model))
        self._graph = self._model.Subgraphs(0)
        self._type_names = {
            value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")
        }

    def with_rounding_noise(self, random: np.random.RandomState) -> bytes:
        """Return the model with its constants changed at random, as `converters.runtimes.rounding` says."""
        changed = TfliteGraph(self.contents)
        terms = changed._longest_sum()
        for index in range(changed._graph.TensorsLength()):
            values = changed._float_constant(index)
            if values is not None:
                values[:] = noisy(values, terms, random)
        return changed.contents

    @property
    def contents(self) -> bytes:
        """The bytes of the model."""
        return bytes(self._model._tab.Bytes)

    def output_step(self) -> float:
        """Return the step between neighbouring values of the first output; 0 where it is not quantized.

        A quantized model with float output ends in DEQUANTIZE, whose input has the scale.
        """
        output = self._graph.Outputs(0)
        for operator in self._operators():
            if operator.Outputs(0) == output and self._name(operator) == "DEQUANTIZE":
                quantization = self._graph.Tensors(operator.Inputs(0)).Quantization()
                if quantization is not None and quantization.ScaleLength():
                    return float(quantization.Scale(0))
        return 0.0

    def peak_memory_bytes(self) -> int:
        """Return the estimate of `converters.memory` for one sample."""
        tensors = range(self._graph.TensorsLength())
        constant = {index: self._constant_size_bytes(index) for index in tensors}
        return peak_memory_bytes(
            (
                (_indices(operator.InputsAsNumpy()), _indices(operator.OutputsAsNumpy()))
                for operator in self._operators()
            ),
            {str(index): self._size_bytes(index) for index in tensors if not constant[index]},
            inputs=_indices(self._graph.InputsAsNumpy()),
            outputs=_indices(self._graph.OutputsAsNumpy()),
            weights_bytes=sum(constant.values()),
        )

    def _operators(self) -> list[Any]:
        return [self._graph.Operators(index) for index in range(self._graph.OperatorsLength())]

    def _name(self, operator: Any) -> str:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        names = {v: k for k, v in vars(self._schema.BuiltinOperator).items() if not k.startswith("_")}
        return str(names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())])

    def _type(self, tensor: Any) -> str:
        return str(self._type_names[tensor.Type()])

    def _shape(self, index: int) -> tuple[int, ...]:
        tensor = self._graph.Tensors(index)
        return (
            tuple(int(size) for size in np.atleast_1d(tensor.ShapeAsNumpy())) if tensor.ShapeLength() else ()
        )

    def _size_bytes(self, index: int) -> int:
        item = _ITEM_SIZE_BYTES.get(self._type(self._graph.Tensors(index)), 1)
        return item * math.prod(max(1, size) for size in self._shape(index))

    def _constant_size_bytes(self, index: int) -> int:
        buffer = self._model.Buffers(self._graph.Tensors(index).Buffer())
        return int(buffer.DataLength() or buffer.Size())

    def _float_constant(self, index: int) -> NDArray[Any] | None:
        """Return a view of a tensor's constant numbers; None where it has none."""
        tensor = self._graph.Tensors(index)
        dtype = {"FLOAT32": np.float32, "FLOAT16": np.float16}.get(self._type(tensor))
        buffer = self._model.Buffers(tensor.Buffer())
        if dtype is None or not buffer.DataLength():
            return None
        values: NDArray[Any] = buffer.DataAsNumpy().view(dtype)
        return values

    def _longest_sum(self) -> int:
        """Return a bound for the number of terms of each sum: weights are (outputs, …) in every product."""
        shapes = [self._shape(i) for i in range(self._graph.TensorsLength()) if self._constant_size_bytes(i)]
        return max((math.prod(shape) // max(1, min(shape)) for shape in shapes if len(shape) > 1), default=1)


def _indices(values: Any) -> list[str]:
    return [str(value) for value in np.atleast_1d(values) if value >= 0]
