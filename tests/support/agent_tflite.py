"""A TFLite file of one dense layer, for the agent's tests: ``softmax(input @ weights)``.

Written with the flatbuffer schema that comes with LiteRT. The layout is that of ``schema.fbs``: a list of
buffers, of which the first is empty by convention; graphs of tensors and operators, of which the first is the
one that runs; and a signature that names inputs and outputs.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_SCHEMA_VERSION = 3
_GIVEN, _ANSWERED = 0, 3  # numbers of tensors
_OPERATORS = (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.SOFTMAX)


def dense_softmax(
    weights: NDArray[np.float32],
    *,
    input_name: str = "pixels",
    output_name: str = "probabilities",
    signed: bool = True,
    signed_graph: int = 0,
    batch: int = -1,
) -> bytes:
    """Return the file.

    Args:
        weights: Shape (K, C).
        input_name: Name of the input, shape (N, K).
        output_name: Name of the output, shape (N, C).
        signed: Whether it has a signature. Then its tensors have other names than the signature says, as
            converters write them; else they have those names themselves.
        signed_graph: Number of the graph that the signature is about; a second one has other tensors.
        batch: N as the file states it; -1 for any.
    """
    given, answered = ("x:0", "y:0") if signed else (input_name, output_name)
    graphs = [_graph(weights, given, answered, batch)]
    graphs += [_graph(weights, f"{given}/{number}", answered, batch) for number in range(signed_graph)]
    signature = schema.SignatureDefT(
        inputs=[schema.TensorMapT(input_name, _GIVEN)],
        outputs=[schema.TensorMapT(output_name, _ANSWERED)],
        signatureKey="serving_default",
        subgraphIndex=signed_graph,
    )
    model = schema.ModelT(
        version=_SCHEMA_VERSION,
        operatorCodes=[schema.OperatorCodeT(builtinCode=c, deprecatedBuiltinCode=c) for c in _OPERATORS],
        subgraphs=graphs,
        buffers=[schema.BufferT(), schema.BufferT(data=_bytes(weights.T))],
        signatureDefs=[signature] if signed else [],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _graph(weights: NDArray[np.float32], given: str, answered: str, batch: int) -> Any:
    inputs, outputs = weights.shape
    tensors = [
        _tensor(given, inputs, batch=batch),
        _tensor("weights", inputs, rows=outputs, buffer=1),
        _tensor("logits", outputs, batch=batch),
        _tensor(answered, outputs, batch=batch),
    ]
    dense = schema.OperatorT(opcodeIndex=0, inputs=[_GIVEN, 1, -1], outputs=[2])
    dense.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    dense.builtinOptions = schema.FullyConnectedOptionsT()
    softmax = schema.OperatorT(opcodeIndex=1, inputs=[2], outputs=[_ANSWERED])
    softmax.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
    softmax.builtinOptions = schema.SoftmaxOptionsT(beta=1.0)
    return schema.SubGraphT(
        tensors, inputs=[_GIVEN], outputs=[_ANSWERED], operators=[dense, softmax], name="main"
    )


def _tensor(name: str, columns: int, *, rows: int | None = None, batch: int = -1, buffer: int = 0) -> Any:
    tensor = schema.TensorT(type=schema.TensorType.FLOAT32, buffer=buffer, name=name)
    tensor.shape = [rows if rows is not None else abs(batch), columns]
    if rows is None:
        tensor.shapeSignature = [batch, columns]
    return tensor


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.frombuffer(np.ascontiguousarray(values, dtype="<f4").tobytes(), dtype=np.uint8)
