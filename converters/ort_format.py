"""The ORT format: onnxruntime's own files, a FlatBuffers table with the identifier ``ORTM``.

They are read here with the bindings that ship inside onnxruntime: which version of the format a file has,
which operators and constants. They verify nothing: only read what onnxruntime has written or has loaded.

==============  ==============================================================================================
format version  first release of onnxruntime that reads it
==============  ==============================================================================================
5               1.13 (its documentation, "ORT model format", and ``core/flatbuffers/schema/README.md``)
6               1.16 (the same; the maintainers in issue 20670)
==============  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fleet.protocol.errors import ConversionFailed

IDENTIFIER = b"ORTM"
FIRST_RELEASE = {"5": "1.13", "6": "1.16"}


def is_ort_format(model: bytes) -> bool:
    """Return whether these bytes claim to be in the ORT format."""
    return model[4:8] == IDENTIFIER


def ort_graph(model: bytes | bytearray) -> Any:
    """Return the table of the graph; in a bytearray its constants can be changed in place.

    Raises:
        ConversionFailed: There is none.
    """
    return _session(model).Model().Graph()


def minimum_release(model: bytes) -> str:
    """Return the first release of onnxruntime that reads a file.

    Raises:
        ConversionFailed: Its version of the format is not known here.
    """
    version = (_session(model).OrtVersion() or b"").decode(errors="replace")
    if version not in FIRST_RELEASE:
        raise ConversionFailed(
            f"The file has version {version!r:.20} of the ORT format; {', '.join(FIRST_RELEASE)} are known.",
            remedy="Convert the ONNX model that it was made from.",
        )
    return FIRST_RELEASE[version]


def ort_nodes(graph: Any) -> Iterator[Any]:
    """Yield the tables of the nodes, each after those whose outputs it takes; fused nodes are stored last."""
    waiting = [graph.Nodes(index) for index in range(graph.NodesLength())]
    made_by = {node.Outputs(i): node for node in waiting for i in range(node.OutputsLength())}
    done: set[int] = set()
    stack = waiting[::-1]
    while stack:
        node = stack[-1]
        taken = [node.Inputs(i) for i in range(node.InputsLength())]
        taken += [node.ImplicitInputs(i) for i in range(node.ImplicitInputsLength())]
        before = [made_by[name] for name in taken if name in made_by and made_by[name].Index() not in done]
        if before and node.Index() not in done:
            stack.extend(before)
            continue
        stack.pop()
        if node.Index() not in done:
            done.add(node.Index())
            yield node


def ort_operators(model: bytes) -> frozenset[tuple[str, str]]:
    """Return domain and name of every operator that a file uses, the core's domain being empty."""
    graph = ort_graph(model)
    return frozenset((node.Domain().decode(), node.OpType().decode()) for node in ort_nodes(graph))


def _session(model: bytes | bytearray) -> Any:
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    session = InferenceSession.GetRootAs(model, 0) if is_ort_format(bytes(model[:8])) else None
    if session is None or session.Model() is None or session.Model().Graph() is None:
        raise ConversionFailed("The model is not in the ORT format.")
    return session
