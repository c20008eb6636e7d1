"""The ORT format: onnxruntime's own files, a FlatBuffers table with the identifier ``ORTM``.

They are read here with the bindings that ship inside onnxruntime: which version of the format a file has,
which operators and constants. They verify nothing: only read what onnxruntime has written or has loaded.

A file is one table of the format's version, the model, and for each operator how the types of its arguments
are called, which builds without operator schemas need::

    InferenceSession ─┬─ ort_version             written first, so last in the file
                      ├─ model                   nearly all bytes
                      └─ kernel_type_str_resolver: [operator: [type: [argument]]]

The last part is written in the order of a hash table, which differs from run to run; `canonical` sorts it.

==============  ==============================================================================================
format version  first release of onnxruntime that reads it
==============  ==============================================================================================
5               1.13 (its documentation, "ORT model format", and ``core/flatbuffers/schema/README.md``)
6               1.16 (the same; the maintainers in issue 20670)
==============  ==============================================================================================
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from converters.graphs.versions import release_for
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.requirement import version_key

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
    """Return the first release of onnxruntime that reads a file and knows the operator sets in it.

    Raises:
        ConversionFailed: Its version of the format, or of an operator set, is not known here.
    """
    session = _session(model)
    version = (session.OrtVersion() or b"").decode(errors="replace")
    if version not in FIRST_RELEASE:
        raise ConversionFailed(
            f"The file has version {version!r:.20} of the ORT format; {', '.join(FIRST_RELEASE)} are known.",
            remedy="Convert the ONNX model that it was made from.",
        )
    imports = [session.Model().OpsetImport(i) for i in range(session.Model().OpsetImportLength())]
    versions = {entry.Domain(): entry.Version() for entry in imports}
    operators = release_for(versions.get(b"", 0), versions.get(b"ai.onnx.ml", 0), ir_version=0)
    return max(FIRST_RELEASE[version], operators, key=version_key)


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


def bindings(table: str) -> ModuleType:
    """Return the module that reads and writes one kind of the format's tables.

    The modules import each other under the name ``ort_flatbuffers_py``. They are loaded under it from where
    they are: the package around them imports PyTorch where there is one, and changes the path of all
    imports.
    """
    package = "ort_flatbuffers_py"
    if package not in sys.modules:
        runtime = find_spec("onnxruntime")
        assert runtime is not None
        assert runtime.submodule_search_locations is not None
        folder = Path(runtime.submodule_search_locations[0], "tools", "ort_format_model", package)
        spec = spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        sys.modules[package] = module_from_spec(spec)
    return import_module(f"{package}.fbs.{table}")


def canonical(model: bytes) -> bytes:
    """Return a file as onnxruntime wrote it, with its operators' argument types in the order of their names.

    The model's bytes stay as they are: all references in them are relative and lead towards the file's end.

    Raises:
        ConversionFailed: It is not in the ORT format.
    """
    import flatbuffers

    session, Session = _session(model), bindings("InferenceSession")  # noqa: N806 - a module of one class
    table = session.Model()._tab  # the bindings give no other way to its position
    vtable = table.Pos - int.from_bytes(model[table.Pos : table.Pos + 4], "little", signed=True)
    kept = model[min(table.Pos, vtable) :]
    builder = flatbuffers.Builder(2 * len(kept) + 1024)
    builder.minalign = 16
    builder.Bytes[len(builder.Bytes) - len(kept) :] = kept
    builder.head = len(builder.Bytes) - len(kept)
    version = builder.CreateString(session.OrtVersion().decode())
    resolver = _sorted_resolver(builder, session.KernelTypeStrResolver())
    Session.Start(builder)
    Session.AddOrtVersion(builder, version)
    Session.AddModel(builder, len(model) - table.Pos)
    if resolver is not None:
        Session.AddKernelTypeStrResolver(builder, resolver)
    builder.Finish(Session.End(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _sorted_resolver(builder: Any, resolver: Any) -> int | None:
    """Write the table of argument types, and return where it is."""
    if resolver is None:
        return None

    def written(table: str, **fields: Any) -> int:
        kind = bindings(table)
        kind.Start(builder)
        for name, value in fields.items():
            getattr(kind, f"Add{name}")(builder, value)
        return int(kind.End(builder))

    def vector(offsets: list[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    def type_entry(entry: Any) -> int:
        arguments = [entry.Args(i) for i in range(entry.ArgsLength())]
        listed = [written("ArgTypeAndIndex", ArgType=a.ArgType(), Index=a.Index()) for a in arguments]
        name, args = builder.CreateString(entry.KernelTypeStr()), vector(listed)
        return written("KernelTypeStrArgsEntry", KernelTypeStr=name, Args=args)

    def operator_entry(entry: Any) -> int:
        types = [entry.KernelTypeStrArgs(i) for i in range(entry.KernelTypeStrArgsLength())]
        listed = [type_entry(each) for each in sorted(types, key=lambda each: each.KernelTypeStr())]
        name, args = builder.CreateString(entry.OpId()), vector(listed)
        return written("OpIdKernelTypeStrArgsEntry", OpId=name, KernelTypeStrArgs=args)

    operators = [resolver.OpKernelTypeStrArgs(i) for i in range(resolver.OpKernelTypeStrArgsLength())]
    listed = [operator_entry(each) for each in sorted(operators, key=lambda each: each.OpId())]
    return written("KernelTypeStrResolver", OpKernelTypeStrArgs=vector(listed))


def _session(model: bytes | bytearray) -> Any:
    root = bindings("InferenceSession").InferenceSession
    session = root.GetRootAs(model, 0) if is_ort_format(bytes(model[:8])) else None
    if session is None or session.Model() is None or session.Model().Graph() is None:
        raise ConversionFailed("The model is not in the ORT format.")
    return session
