"""What rounding and memory of a TFLite model depend on, read from its flatbuffer.

The file must have passed `converters.tflite.inspect.inspect_tflite`: the schema's accessors check nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.graphs.memory import peak_memory_bytes
from converters.runtimes.rounding import FEWEST_TERMS, REACH, noisy
from converters.tflite.parts import BITS

_DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32}

LARGEST_MOVE = 1
"""An integer kernel scales its sum back to eight bits by a multiplier m·2⁻ⁿ, ½ ≤ m < 1. Portable kernels
round twice, m times the sum to an integer and then the shift (``MultiplyByQuantizedMultiplier`` in TFLite,
after gemmlowp); others round once. That differs as if the sum had been moved by 1/(2m), at most 1."""


class TfliteGraph:
    """The first graph of a model.

    Args:
        model: The bytes of a file that was inspected.
    """

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._model = schema.Model.GetRootAs(bytearray(model))
        self._graph = self._model.Subgraphs(0)
        self._type_names = _names_by_value(schema.TensorType)
        self._operator_names = _names_by_value(schema.BuiltinOperator)

    def with_rounding_noise(self, random: np.random.RandomState) -> bytes:
        """Return the model with its constants changed at random, as `converters.runtimes.rounding` says."""
        changed = TfliteGraph(self.contents)
        terms = changed._terms_by_tensor()
        for index in range(changed._graph.TensorsLength()):
            values = changed._constant(index, "FLOAT32", "FLOAT16")
            if values is not None:
                values[:] = noisy(values, terms.get(index, FEWEST_TERMS), random)
        for operator in changed._operators():
            for index in operator.InputsAsNumpy()[1:]:
                changed._move_sums(index, random)
        return changed.contents

    def _move_sums(self, index: int, random: np.random.RandomState) -> None:
        """Move the integer sums of a product, if this tensor is its biases, farther than kernels do."""
        if index >= 0 and len(self._scales(index)) and (biases := self._constant(index, "INT32")) is not None:
            reach = int(REACH * LARGEST_MOVE)
            biases += random.randint(-reach, reach + 1, len(biases)).astype(np.int32)

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
        """Return the estimate of `converters.graphs.memory` for one sample."""
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
        return self._operator_names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]

    def _type(self, tensor: Any) -> str:
        return self._type_names[tensor.Type()]

    def _shape(self, index: int) -> tuple[int, ...]:
        tensor = self._graph.Tensors(index)
        return (
            tuple(int(size) for size in np.atleast_1d(tensor.ShapeAsNumpy())) if tensor.ShapeLength() else ()
        )

    def _size_bytes(self, index: int) -> int:
        bits = BITS.get(self._graph.Tensors(index).Type(), 8)
        return -(-bits * math.prod(max(1, size) for size in self._shape(index)) // 8)

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

    def _terms_by_tensor(self) -> dict[int, int]:
        """Return, for each constant of a product, the number of terms of the sums that it takes part in."""
        stored_as = {}  # weights in fp16 reach their product through DEQUANTIZE
        found: dict[int, int] = {}
        for operator in self._operators():
            taken = [int(index) for index in np.atleast_1d(operator.InputsAsNumpy()) if index >= 0]
            name = self._name(operator)
            if name == "DEQUANTIZE":
                stored_as[operator.Outputs(0)] = taken[0]
            constants = [stored_as.get(index, index) for index in taken]
            constants = [index for index in constants if self._constant_size_bytes(index)]
            shapes = [self._shape(index) for index in constants]
            # Weights are (outputs, …), those of a depthwise convolution (1, height, width, outputs).
            sizes = [
                math.prod(s[1:3] if name == "DEPTHWISE_CONV_2D" else s[1:]) for s in shapes if len(s) > 1
            ]
            for index in constants:
                found[index] = max([FEWEST_TERMS, found.get(index, 0), *sizes])
        return found


def _names_by_value(enumeration: type) -> dict[int, str]:
    """Return the names of one of the schema's enumerations, which are classes of numbers."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _indices(values: Any) -> list[str]:
    return [str(value) for value in np.atleast_1d(values) if value >= 0]
