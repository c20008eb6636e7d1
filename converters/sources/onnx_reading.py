"""Read an ``.onnx`` file that nobody vouches for, with the weights that it keeps in other files.

Nothing is believed before it is checked: the kind and size of the file, then that it is an ONNX model at all.
A tensor may keep its contents in a file beside the model (``external_data``: location, offset, length). Such
a file has to be inside the model's folder, after every symbolic link is followed; the place in it must exist
and have exactly the bytes that the tensor's shape and type ask for. So a model can neither name a file of the
system nor make the reader allocate more than is really there. What was outside is then part of the model.

Source: "External Data" of the ONNX specification (``docs/ExternalData.md``).
"""

from __future__ import annotations

import hashlib
import math
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from converters.graphs.versions import all_tensors
from fleet.protocol.chunks import MAX_BLOB_SIZE_BYTES
from fleet.protocol.errors import InvalidModel, NotFound

if TYPE_CHECKING:
    import onnx

MAX_MODEL_SIZE_BYTES = MAX_BLOB_SIZE_BYTES - 1
"""Most bytes of a model with all its weights: what protobuf can hold, and less than the largest blob."""

_BITS_OF_SMALL_TYPES = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}


class ModelFile(NamedTuple):
    """A model as it was read.

    Attributes:
        model: With all weights in it.
        sha256: Digest of the file's bytes, followed by those of its data files, sorted by location.
    """

    model: onnx.ModelProto
    sha256: str


def read_file(path: Path, *, limit_bytes: int = MAX_MODEL_SIZE_BYTES) -> bytes:
    """Return the contents of a model's file, its size checked before it is read.

    Args:
        path: The file.
        limit_bytes: The most it may have.

    Raises:
        NotFound: There is no such file.
        InvalidModel: It is not a file, empty, too large or not readable.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InvalidModel(f"{path} is not a file.")
        if not status.st_size:
            raise InvalidModel(f"{path} is empty.", remedy="Export or download the model again.")
        if status.st_size > limit_bytes:
            raise InvalidModel(
                f"{path} has {status.st_size} bytes; a model may have {limit_bytes}, with all its weights.",
                remedy="Devices are served models below 2 GiB: use a smaller model, or split it.",
            )
        with path.open("rb") as stream:
            data = stream.read(limit_bytes + 1)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{path} cannot be read: {error}.") from error
    if len(data) != status.st_size:
        raise InvalidModel(f"{path} changed while it was read.", remedy="Wait until it is written.")
    return data


def read_onnx(path: Path) -> ModelFile:
    """Read a model with its weights.

    Args:
        path: The ``.onnx`` file.

    Raises:
        NotFound: There is no such file.
        InvalidModel: It is not an ONNX model, damaged or too large, or its weights are missing or outside its
            folder.
    """
    data = read_file(path)
    model = parse_onnx(data, path.name)
    digest = hashlib.sha256(data)
    left_bytes = MAX_MODEL_SIZE_BYTES - len(data)
    for content in _load_external_data(model, path, left_bytes):
        digest.update(content)
    return ModelFile(model, digest.hexdigest())


def parse_onnx(data: bytes, name: str) -> onnx.ModelProto:
    """Return the model in these bytes.

    Args:
        data: A serialized model.
        name: What to call it in messages.

    Raises:
        InvalidModel: They are not an ONNX model.
    """
    from onnx import ModelProto

    again = "Export or download the model again."
    if data[4:8] == b"ORTM":
        raise InvalidModel(
            f"{name} is in onnxruntime's own .ort format, from which there is no way back.",
            remedy="Give the .onnx file that it was made from.",
        )
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, whose module has no types
        raise InvalidModel(f"{name} is not an ONNX model, or damaged: {error}.", remedy=again) from error
    if not model.graph.node and not model.graph.output:
        raise InvalidModel(f"{name} is not an ONNX model, or cut off: it has no graph.", remedy=again)
    if not model.opset_import:
        raise InvalidModel(f"{name} states no operator set; it is damaged or cut off.", remedy=again)
    return model


def _load_external_data(model: onnx.ModelProto, path: Path, limit_bytes: int) -> list[bytes]:
    """Move all weights into the model; return the contents of the files they were in, sorted by location."""
    from onnx import TensorProto

    contents: dict[str, bytes] = {}
    outside = [tensor for tensor in all_tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    declared_bytes = sum(_size_bytes(tensor) or 0 for tensor in outside)  # many may share one place in a file
    if declared_bytes > limit_bytes:
        raise InvalidModel(
            f"{path.name} declares {declared_bytes} bytes of weights in other files; {limit_bytes} may be.",
            remedy="Devices are served models below 2 GiB: use a smaller model, or split it.",
        )
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in contents:
            inside = _data_file(path, location, tensor.name)
            left_bytes = limit_bytes - sum(map(len, contents.values()))
            contents[location] = read_file(inside, limit_bytes=max(left_bytes, 0))
        tensor.raw_data = _part(contents[location], entries, tensor, path)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return [contents[location] for location in sorted(contents)]


def _data_file(path: Path, location: str, tensor: str) -> Path:
    """Return the data file of a tensor, if it is inside the model's folder."""
    where = f"{path.name}: tensor {tensor!r:.80} keeps its contents in {location!r:.200}"
    relative = PurePosixPath(location)
    if (
        not location
        or relative.is_absolute()
        or ".." in relative.parts
        or "\\" in location
        or "\0" in location
    ):
        raise InvalidModel(
            f"{where}, which is not a path inside the model's folder.",
            remedy="Save the model again with its data beside it, or distrust whoever sent it.",
        )
    try:
        folder = path.parent.resolve(strict=True)
        found = (folder / relative).resolve(strict=True)
    except FileNotFoundError as error:
        raise InvalidModel(f"{where}, which is not there.", remedy="Copy it beside the model.") from error
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        raise InvalidModel(f"{where}, which cannot be read: {error}.") from error
    if not found.is_relative_to(folder):
        raise InvalidModel(
            f"{where}, a link that leads out of the model's folder.",
            remedy="Replace the link by the file itself.",
        )
    return found


def _part(content: bytes, entries: dict[str, str], tensor: onnx.TensorProto, path: Path) -> bytes:
    """Return a tensor's part of a data file."""
    where = f"{path.name}: tensor {tensor.name!r:.80}"
    needed = _size_bytes(tensor)
    if needed is None:
        raise InvalidModel(f"{where} has a type or shape that no data file can hold.")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    except ValueError as error:
        raise InvalidModel(f"{where} states no usable place in its data file.") from error
    if length != needed or not 0 <= offset <= len(content) - length:
        raise InvalidModel(
            f"{where} needs {needed} bytes, and its data file of {len(content)} bytes should have {length} of"
            f" them from byte {offset} on.",
            remedy="The data file is another model's or cut off: export the model again.",
        )
    return content[offset : offset + length]


def _size_bytes(tensor: onnx.TensorProto) -> int | None:
    """Return how many bytes a tensor's contents have; None where that cannot be."""
    from onnx import TensorProto, helper

    kinds = {number: name for name, number in TensorProto.DataType.items()}
    kind = kinds.get(tensor.data_type, "UNDEFINED")
    if kind in {"UNDEFINED", "STRING"} or any(size < 0 for size in tensor.dims):
        return None
    elements = int(math.prod(tensor.dims))
    if kind in _BITS_OF_SMALL_TYPES:
        return -(-elements * _BITS_OF_SMALL_TYPES[kind] // 8)
    return elements * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
