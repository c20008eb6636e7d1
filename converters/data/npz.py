r"""A strict reader and a deterministic writer of NumPy's ``.npz`` files.

An ``.npz`` file is a ZIP archive of ``.npy`` members::

    end of the archive   "PK\5\6", disks (4), entries (2), entries (2), directory size (4), directory
                         offset (4), comment length (2, here always 0): 22 bytes
    ``.npy`` member      "\x93NUMPY", version (2), header length (2, from version 2 on 4), header, data
    header               {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   and a line end

Registered files come from people, so the reader believes nothing. The number of entries and every declared
size are checked before anything of that size is allocated, headers are matched against the form above and
never evaluated, and only numbers and text are read: an object array is a Python pickle, which is a program.

The writer stores its members uncompressed with a fixed date: the same arrays give the same bytes on every
machine. Sources: APPNOTE.TXT 6.3.10 (ZIP), ``numpy.lib.format`` (NEP 1).
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidDataset

MAX_FILE_SIZE_BYTES = 512 * 1024**2
MAX_UNPACKED_SIZE_BYTES = 512 * 1024**2
"""Most bytes of all members together, after decompression."""

_MAX_ENTRIES = 16
_MAX_DIRECTORY_SIZE_BYTES = 4096
_MAX_HEADER_SIZE_BYTES = 4096
_END_OF_ARCHIVE = struct.Struct("<4s4x2H2IH")
_ZIP64_LOCATOR_SIZE_BYTES = 20
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{\s*'descr':\s*'(?P<descr>[^']{1,16})',\s*'fortran_order':\s*(?P<fortran>True|False),"
    r"\s*'shape':\s*\((?P<shape>[\d,\s]*)\),?\s*\}\s*\Z"
)
_READABLE_DTYPE = re.compile(r"[<>|=]?(?:[iu][1248]|f[248])\Z|[<>=]U[1-9]\d{0,2}\Z")
_EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)


def read_arrays(
    stream: BinaryIO, names: Sequence[str] | None = None, *, optional: str = ""
) -> dict[str, NDArray[Any]]:
    """Read arrays from an ``.npz`` file.

    Args:
        stream: The opened, seekable file.
        names: The arrays that it must hold, and no others; None for whichever it holds.
        optional: Name of one more that it may hold besides; empty for none.

    Raises:
        InvalidDataset: It is no such file, is damaged, or declares more than the limits allow.
    """
    with _zip_errors_converted():
        _check_end_of_archive(stream)
        with zipfile.ZipFile(stream) as archive:
            if names is not None and f"{optional}.npy" in archive.namelist():
                names = [*names, optional]
            members = _checked_members(archive, names)
            return {name: _read_array(archive, member, name) for name, member in members.items()}


def write_arrays(stream: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of numbers or text as an ``.npz`` file, byte for byte the same for the same arrays.

    Args:
        stream: Where to write.
        arrays: By name; their order is the order in the file.
    """
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=_EARLIEST_DATE)
            member.create_system = 3  # Unix, also when written elsewhere
            archive.writestr(member, _npy_header(array) + np.ascontiguousarray(array).tobytes())


@contextmanager
def _zip_errors_converted() -> Iterator[None]:
    """Turn everything that `zipfile` raises on damaged archives into the one typed error."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        OverflowError,
        RuntimeError,  # encrypted members, unknown compression
        ValueError,
    ) as error:
        raise InvalidDataset(
            f"The file is damaged or not an .npz archive: {error}.", remedy="Write it with numpy.savez."
        ) from error


def _check_end_of_archive(stream: BinaryIO) -> None:
    """Bound the archive's directory before `zipfile` builds an object for each of its entries."""
    size = stream.seek(0, 2)
    if size > MAX_FILE_SIZE_BYTES:
        raise InvalidDataset(f"The file has {size} bytes; {MAX_FILE_SIZE_BYTES} are allowed.")
    tail_size = min(size, _END_OF_ARCHIVE.size + _ZIP64_LOCATOR_SIZE_BYTES)
    stream.seek(size - tail_size)
    tail = stream.read(tail_size)
    end = tail[-_END_OF_ARCHIVE.size :]
    if len(end) < _END_OF_ARCHIVE.size or not end.startswith(b"PK\x05\x06"):
        raise InvalidDataset(
            "The file is not an .npz archive, or its end is missing.", remedy="Write it with numpy.savez."
        )
    _, _, entries, directory_size, _, comment_size = _END_OF_ARCHIVE.unpack(end)
    if entries > _MAX_ENTRIES or directory_size > _MAX_DIRECTORY_SIZE_BYTES or comment_size:
        raise InvalidDataset(f"The archive has {entries} entries or a comment, which datasets do not have.")
    if tail.startswith(b"PK\x06\x07"):  # would let a second directory of any size take precedence
        raise InvalidDataset("The archive is in the ZIP64 form, which only files beyond the limits need.")
    stream.seek(0)


def _checked_members(archive: zipfile.ZipFile, names: Sequence[str] | None) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    found = sorted(info.filename for info in infos)
    if names is None:
        names = [name.removesuffix(".npy") for name in found]
    if len(set(found)) != len(found) or found != sorted(f"{name}.npy" for name in names):
        raise InvalidDataset(
            f"The file holds {', '.join(map(ascii, found)) or 'nothing'}; a dataset holds {', '.join(names)}."
        )
    unpacked = sum(info.file_size for info in infos)
    if unpacked > MAX_UNPACKED_SIZE_BYTES:
        raise InvalidDataset(f"The file unpacks to {unpacked} bytes; {MAX_UNPACKED_SIZE_BYTES} are allowed.")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in infos):
        raise InvalidDataset("The archive's compression is not one that numpy.savez writes.")
    return {name: archive.getinfo(f"{name}.npy") for name in names}


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    with archive.open(info) as member:
        header, header_size = _read_header(member, name)
        dtype, shape, order = _parse_header(header, name)
        declared = math.prod(shape) * dtype.itemsize
        if declared != info.file_size - header_size:
            raise InvalidDataset(
                f"{name} declares {declared} bytes of data and has {info.file_size - header_size}."
            )
        data = member.read(declared)
    if len(data) != declared:
        raise InvalidDataset(f"{name} is cut off after {len(data)} of {declared} bytes.")
    if dtype.kind == "U" and not _is_unicode(data, dtype):
        raise InvalidDataset(f"{name} has text that is not Unicode.", remedy="Save it as plain text again.")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


def _is_unicode(data: bytes, dtype: np.dtype[Any]) -> bool:
    """Return whether text holds characters only: numbers of 32 bits below 0x110000 that are no surrogates."""
    numbers = np.frombuffer(data, dtype=np.dtype("u4").newbyteorder(dtype.byteorder))
    return not ((numbers > 0x10FFFF) | ((numbers >= 0xD800) & (numbers <= 0xDFFF))).any()


def _read_header(member: IO[bytes], name: str) -> tuple[str, int]:
    """Return the header's text, and the number of bytes up to its end."""
    prefix = member.read(len(_MAGIC) + 2)
    if not prefix.startswith(_MAGIC) or prefix[len(_MAGIC) :] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise InvalidDataset(f"{name} is not in NumPy's .npy format.")
    length_format = "<H" if prefix[len(_MAGIC)] == 1 else "<I"
    (length,) = struct.unpack(length_format, member.read(struct.calcsize(length_format)))
    if length > _MAX_HEADER_SIZE_BYTES:
        raise InvalidDataset(f"{name} has a header of {length} bytes; {_MAX_HEADER_SIZE_BYTES} are allowed.")
    text = member.read(length).decode("latin-1")
    return text, len(prefix) + struct.calcsize(length_format) + length


def _parse_header(header: str, name: str) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    match = _HEADER.match(header)
    if match is None:
        raise InvalidDataset(
            f"{name} does not have the header of a plain array.",
            remedy="Save plain arrays of numbers or text, not structured ones.",
        )
    descr = match["descr"]
    if descr.endswith("O"):
        raise InvalidDataset(
            f"{name} is an array of Python objects, which is never loaded.",
            remedy=f"Save {name} with a plain dtype; labels of unequal length do not make an array.",
        )
    if not _READABLE_DTYPE.match(descr):
        raise InvalidDataset(f"{name} has dtype {descr!a}; datasets hold numbers and text.")
    shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
    if any(size > MAX_UNPACKED_SIZE_BYTES for size in shape):
        raise InvalidDataset(f"{name} declares a shape beyond every limit.")
    return np.dtype(descr), shape, "F" if match["fortran"] == "True" else "C"


def _npy_header(array: NDArray[Any]) -> bytes:
    shape = "".join(f"{size}, " for size in array.shape)
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': ({shape}), }}".encode()
    unpadded = len(_MAGIC) + 4 + len(text) + 1
    text += b" " * (-unpadded % 64) + b"\n"  # data is aligned to 64 bytes
    return _MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text
