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

_DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32}

TIE_REACH = 1 / 8
"""Two ways to round a sum to a step differ only where it lies about the middle between two steps. Sums are
moved by up to this share of a step, so that one in sixteen is rounded the other way."""


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
            values = changed._constant(index, "FLOAT32", "FLOAT16")
            if values is not None:
                values[:] = noisy(values, terms, random)
        for operator in changed._operators():
            changed._move_sums(operator, random)
        return changed.contents

    def _move_sums(self, operator: Any, random: np.random.RandomState) -> None:
        """Move the integer sums of a product by up to `TIE_REACH` of a step of its output, by its biases.

        A bias of q stands for q times its channel's scale, which is the input's times that of the weights.
        """
        output_scales = self._scales(operator.Outputs(0))
        for index in operator.InputsAsNumpy()[1:]:
            biases = self._constant(index, "INT32") if index >= 0 else None
            scales = self._scales(index)
            if biases is None or len(scales) not in {1, len(biases)} or len(output_scales) != 1:
                continue
            reach = TIE_REACH * output_scales[0] / scales
            biases += np.rint(random.uniform(-1.0, 1.0, len(biases)) * reach).astype(np.int32)

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
                return float(max(self._scales(operator.Inputs(0)), default=0.0))
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

    def _constant(self, index: int, *types: str) -> NDArray[Any] | None:
        """Return a view of a tensor's constant numbers; None where it has none, or is of another type."""
        tensor = self._graph.Tensors(index)
        buffer = self._model.Buffers(tensor.Buffer())
        if self._type(tensor) not in types or not buffer.DataLength():
            return None
        values: NDArray[Any] = buffer.DataAsNumpy().view(_DTYPES[self._type(tensor)])
        return values

    def _scales(self, index: int) -> NDArray[np.float32]:
        """Return the scales of a tensor's quantization; none where it is not quantized."""
        quantization = self._graph.Tensors(index).Quantization() if index >= 0 else None
        if quantization is None or not quantization.ScaleLength():
            return np.empty(0, dtype=np.float32)
        return np.asarray(quantization.ScaleAsNumpy(), dtype=np.float32)

    def _longest_sum(self) -> int:
        """Return a bound for the number of terms of each sum: weights are (outputs, …) in every product."""
        shapes = [self._shape(i) for i in range(self._graph.TensorsLength()) if self._constant_size_bytes(i)]
        return max((math.prod(shape) // max(1, min(shape)) for shape in shapes if len(shape) > 1), default=1)


def _indices(values: Any) -> list[str]:
    return [str(value) for value in np.atleast_1d(values) if value >= 0]
