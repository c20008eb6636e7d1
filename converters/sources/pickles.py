"""Pickled models: files of ``pickle``, ``cloudpickle`` and ``joblib``.

A pickle is a program: reading one runs it, with all rights of the reader. So none is read unless a person
says that they trust where it came from, and every failure of that program becomes one error.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from converters.source import Source
from converters.sources.sklearn import open_sklearn
from fleet.protocol.errors import InvalidModel, NotFound

MAX_PICKLE_SIZE_BYTES = 2 * 1024**3


class Unpickled(NamedTuple):
    """What a pickle held.

    Attributes:
        value: The object.
        sha256: Digest of the file.
        cautions: What to know before trusting it, in whole sentences.
    """

    value: Any
    sha256: str
    cautions: tuple[str, ...]


def open_pickle(
    path: Path,
    *,
    trusted: bool,
    classes: tuple[str, ...] = (),
    sample_shape: tuple[int, ...] | None = None,
) -> Source:
    """Return the scikit-learn estimator in a pickle as a source.

    Args:
        path: The file.
        trusted: Whether the program in it may run.
        classes: See `open_sklearn`.
        sample_shape: See `open_sklearn`.

    Raises:
        NotFound: There is no such file.
        InvalidModel: It may not be read, cannot be read, or holds no fitted estimator.
        ConversionFailed: A step of the estimator has no counterpart in ONNX.
    """
    read = load_pickled(path, trusted=trusted)
    return open_unpickled(read, name=path.name, classes=classes, sample_shape=sample_shape)


def open_unpickled(
    read: Unpickled, *, name: str, classes: tuple[str, ...] = (), sample_shape: tuple[int, ...] | None = None
) -> Source:
    """Return what a pickle held as a source; see `open_sklearn` for arguments and errors."""
    source = open_sklearn(read.value, name=name, classes=classes, sample_shape=sample_shape)
    return replace(source, sha256=read.sha256, cautions=(*read.cautions, *source.cautions))


def load_pickled(path: Path, *, trusted: bool) -> Unpickled:
    """Read a pickle, which runs the program in it.

    Args:
        path: The file, compressed by joblib or not.
        trusted: Whether the program in it may run.

    Raises:
        NotFound: There is no such file.
        InvalidModel: It is not trusted, too large, or its program fails.
    """
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    if not trusted:
        raise InvalidModel(
            f"{path} is a pickle: reading it runs whatever program it holds.",
            remedy="If you trust its maker, give --trust-pickle (in Python trust_pickle=True);"
            " otherwise ask for the model as an .onnx file.",
        )
    data = _bytes_of(path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = joblib.load(io.BytesIO(data))
    except Exception as error:  # the program in a pickle may raise anything
        reason = " ".join(str(error).split())
        raise InvalidModel(
            f"{path} cannot be read: {type(error).__name__}: {reason:.400}", remedy=_remedy(error)
        ) from error
    versions = sorted(
        {
            f"It was saved by scikit-learn {warning.message.original_sklearn_version} and read"
            f" by {warning.message.current_sklearn_version}: it may answer otherwise than it did there."
            for warning in caught
            if isinstance(warning.message, InconsistentVersionWarning)
        }
    )
    return Unpickled(value, hashlib.sha256(data).hexdigest(), tuple(versions))


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            size_bytes = stream.seek(0, io.SEEK_END)
            if size_bytes > MAX_PICKLE_SIZE_BYTES:
                raise InvalidModel(f"{path} has {size_bytes} bytes; {MAX_PICKLE_SIZE_BYTES} are allowed.")
            stream.seek(0)
            return stream.read(size_bytes)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}.") from error


def _remedy(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"Install the package of the module {error.name!r}, or export the model where it was trained."
    if isinstance(error, AttributeError | ImportError):
        return (
            "It needs a class or function that is not installed here: put it into an installed module, or"
            " save the model again with the library's release that is installed here."
        )
    return "Save it again with joblib.dump() or pickle.dump(), by the scikit-learn that is installed here."
