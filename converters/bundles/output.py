"""The output folder of a conversion.

::

    folder/<variant>.onnx | .ort | .tflite    each model that passed
    folder/report.json                        the `converters.report.Report`
    folder/bundle/                            these models as a bundle (see `folder`), if there is one

It is made beside its place, written to disk and renamed: it appears whole or not at all.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import msgspec

from converters.bundles.folder import write_bundle
from converters.convert import Conversion
from converters.report import Report
from fleet.protocol.errors import Conflict, NoSpace, StorageError

REPORT_FILE = "report.json"
BUNDLE_FOLDER = "bundle"


def check_output(folder: Path) -> Path:
    """Return the absolute path of a folder that can be written, before any work is done for it.

    Args:
        folder: Does not exist yet, or is empty.

    Raises:
        Conflict: It has contents, is a file, or cannot be replaced.
        StorageError: It cannot be looked at.
    """
    try:
        resolved = folder.resolve()
        if resolved.is_mount() or resolved == Path.cwd():
            raise Conflict(
                f"{folder} cannot be replaced by the output.", remedy="Name a new folder inside it."
            )
        if resolved.exists() and (not resolved.is_dir() or any(resolved.iterdir())):
            raise Conflict(
                f"{folder} is in use: it is a file, or a folder that is not empty.",
                remedy="Name a new folder.",
            )
    except (OSError, RuntimeError) as error:  # until Python 3.12 the latter for links that lead in a circle
        raise StorageError(f"{folder} cannot be used: {error}.") from error
    return resolved


def write_conversion(folder: Path, conversion: Conversion) -> tuple[str, ...]:
    """Write what passed, and the report.

    Args:
        folder: Does not exist yet, or is empty; folders above it are made.
        conversion: What `converters.convert.convert` returned.

    Returns:
        The names in the folder: the models, in the order of the targets, the report, the bundle.

    Raises:
        Conflict: The folder is in use.
        NoSpace: The disk is full; nothing is left behind.
        StorageError: It could not be written; nothing is left behind.
    """
    place = check_output(folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{place.name[:64]}.", suffix=".part", dir=place.parent
        ) as beside:
            whole = Path(beside) / "whole"
            whole.mkdir()  # unlike the folder around it, with the permissions that new folders have here
            names = _write(whole, conversion)
            _sync(whole)
            whole.replace(place)
        _sync_entry(place.parent)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(
                f"There is no space left to write {folder}.", remedy="Free some and try again."
            ) from error
        raise StorageError(f"The output could not be written to {folder}: {error.strerror}.") from error
    return names


def encode_report(report: Report) -> bytes:
    """Return the report as JSON, indented, with its fields in the order of their declaration."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def _write(folder: Path, conversion: Conversion) -> tuple[str, ...]:
    files = {
        f"{variant}{Path(conversion.file_names[variant]).suffix}": model
        for variant, model in conversion.models.items()
    }
    files[REPORT_FILE] = encode_report(conversion.report)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if conversion.bundle is None:
        return tuple(files)
    write_bundle(folder / BUNDLE_FOLDER, conversion.bundle)
    return (*files, BUNDLE_FOLDER)


def _sync(folder: Path) -> None:
    """Make a folder and all in it durable.

    Raises:
        OSError: The system refused.
    """
    for path in sorted(folder.rglob("*")):
        _sync_entry(path)
    _sync_entry(folder)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
