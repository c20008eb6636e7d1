"""Datasets: the file that people register, its checks, and its split.

A dataset is an ``.npz`` file with three arrays, and a fourth where it declares what the features are:

============  ==========================  ============================================================
name          dtype, shape                meaning
============  ==========================  ============================================================
``features``  numbers, (N, …), rank 2–4   one sample in each row, exactly as devices will see it
``labels``    integers, (N,)              number of the sample's class
``classes``   text, (C,)                  what the classes are called
``layout``    text, () or (1,)            what the axes of the features are, see `fleet.drift.inputs`
============  ==========================  ============================================================

The SHA-256 of the file identifies the dataset. All random choices come from `numpy.random.RandomState`,
whose streams NumPy has promised never to change (NEP 19), so a seed names the same split for ever.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.data.npz import read_arrays, write_arrays
from fleet.drift.inputs import LAYOUTS, layout_of
from fleet.protocol.errors import DigestMismatch, InvalidDataset, NotFound, StorageError

ARRAYS = ("features", "labels", "classes")
LAYOUT = "layout"
"""Name of the array that a dataset may have besides."""
MAX_RANK = 4
MAX_CLASSES = 1000
MAX_CLASS_NAME_LENGTH = 64
MIN_SAMPLES_PER_CLASS = 5
"""Fewer cannot be split into a part for training and a held-out part that says anything."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples.

    Attributes:
        features: float32, shape (N, …).
        labels: int64, shape (N,), each from 0 to C - 1.
        classes: C names.
        layout: What the axes of the features are, such as ``NHW``; empty where it is not declared.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    layout: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.features.shape[1:]

    def take(self, indices: NDArray[np.intp]) -> Dataset:
        """Return the samples with these indices, shape (M,), in their order."""
        return replace(self, features=self.features[indices], labels=self.labels[indices])


class Split(NamedTuple):
    """A dataset in two.

    Attributes:
        part: The share that was asked for.
        rest: All other samples.
    """

    part: Dataset
    rest: Dataset


def checked_dataset(
    features: NDArray[Any], labels: NDArray[Any], classes: tuple[str, ...], layout: str = ""
) -> Dataset:
    """Return a dataset of these arrays if they make one.

    Args:
        features: Numbers, shape (N, …).
        labels: Integers, shape (N,).
        classes: Names of the classes.
        layout: What the axes of the features are; empty where it is not declared.

    Raises:
        InvalidDataset: They do not; the message says what is wrong with them.
    """
    _check_classes(classes)
    if features.dtype.kind not in "iuf" or not 2 <= features.ndim <= MAX_RANK or 0 in features.shape:
        raise InvalidDataset(
            f"features has shape {features.shape} and dtype {features.dtype};"
            f" numbers of shape (N, …) with 2 to {MAX_RANK} dimensions are needed."
        )
    if layout and layout_of(layout, features.shape[1:]) != layout:
        raise InvalidDataset(
            f"features of shape {features.shape} cannot be {layout!a:.40}.",
            remedy=f"Declare one of {', '.join(LAYOUTS)}, a letter for each dimension, or no layout.",
        )
    _check_labels(labels, len(features), classes)
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused below
        converted = np.ascontiguousarray(features, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(converted.reshape(len(converted), -1)).all(axis=1))
    if bad.size:
        raise InvalidDataset(
            f"{bad.size} samples have features that are missing or not finite; the first is number {bad[0]}.",
            remedy="Fill or remove them: devices send no such values either.",
        )
    return Dataset(converted, np.ascontiguousarray(labels, dtype=np.int64), classes, layout)


def read_dataset(path: Path, *, sha256: str | None = None) -> Dataset:
    """Read a dataset file.

    Args:
        path: The file.
        sha256: Its digest in hexadecimal, checked before anything is parsed; None where none is known yet.

    Raises:
        NotFound: There is no such file.
        DigestMismatch: It is not the file that was registered.
        InvalidDataset: It is not a dataset.
    """
    with opened(path) as stream:
        if sha256 is not None:
            checked_digest(stream, sha256)
        arrays = read_arrays(stream, ARRAYS, optional=LAYOUT)
    names = arrays["classes"]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise InvalidDataset(
            f"classes has shape {names.shape} and dtype {names.dtype}; a list of names is needed.",
            remedy="Save it with numpy.array([...], dtype=str).",
        )
    if len(names) > MAX_CLASSES:
        raise InvalidDataset(f"classes has {len(names)} names; {MAX_CLASSES} are allowed.")
    classes = tuple(str(name) for name in names)
    return checked_dataset(arrays["features"], arrays["labels"], classes, layout_in(arrays))


def layout_in(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the layout that arrays of a dataset declare; empty if they declare none.

    Raises:
        InvalidDataset: It is no text.
    """
    declared = arrays.get(LAYOUT)
    if declared is None:
        return ""
    if declared.dtype.kind != "U" or declared.size != 1:
        raise InvalidDataset(
            f"layout has shape {declared.shape} and dtype {declared.dtype}; one text is needed, such as NHW."
        )
    return str(declared.ravel()[0])


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write a dataset file, whole or not at all; the same dataset gives the same bytes.

    Args:
        path: The file; replaced if it exists.
        dataset: What to write.

    Raises:
        InvalidDataset: It would not be readable as a dataset.
        StorageError: It could not be written; nothing was changed.
    """
    checked = checked_dataset(dataset.features, dataset.labels, dataset.classes, dataset.layout)
    arrays: dict[str, NDArray[Any]] = {
        "features": checked.features.astype("<f4", copy=False),
        "labels": checked.labels.astype("<i8", copy=False),
        "classes": np.array(checked.classes, dtype=f"<U{max(map(len, checked.classes))}"),
    }
    if checked.layout:
        arrays[LAYOUT] = np.array(checked.layout)
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as stream:
            write_arrays(stream, arrays)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StorageError(f"The dataset could not be written to {path}: {error.strerror}.") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        NotFound: There is no such file.
    """
    with opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def split_stratified(dataset: Dataset, *, share: float, seed: int) -> Split:
    """Draw a share of every class.

    Args:
        dataset: At least two samples of each class.
        share: Greater than 0, less than 1. Each class gives the nearest number of samples, at least one,
            and keeps at least one.
        seed: 0 to 2^32 - 1.

    Raises:
        InvalidDataset: A class has fewer than two samples.
    """
    random = np.random.RandomState(seed)
    chosen = np.zeros(len(dataset), dtype=bool)
    for label, name in enumerate(dataset.classes):
        indices = np.flatnonzero(dataset.labels == label)
        if len(indices) < 2:
            raise InvalidDataset(f"Class {name!r} has {len(indices)} samples, which cannot be split in two.")
        wanted = min(max(1, round(share * len(indices))), len(indices) - 1)
        chosen[random.permutation(indices)[:wanted]] = True
    return Split(dataset.take(np.flatnonzero(chosen)), dataset.take(np.flatnonzero(~chosen)))


def opened(path: Path) -> BufferedReader:
    """Open a dataset file for reading.

    Raises:
        NotFound: There is no such file.
        InvalidDataset: It cannot be opened.
    """
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise NotFound(f"There is no dataset file {path}.") from error
    except OSError as error:
        raise InvalidDataset(f"The dataset file {path} cannot be opened: {error.strerror}.") from error


def checked_digest(stream: BufferedReader, sha256: str | None) -> str:
    """Return the SHA-256 of a dataset file, in hexadecimal, if it is the file that was registered.

    Args:
        stream: The file.
        sha256: What it should be; None where none is known yet.

    Raises:
        DigestMismatch: It is another.
    """
    found = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 not in (None, found):
        raise DigestMismatch(f"The dataset file has SHA-256 {found}; {sha256} was registered.")
    return found


def _check_classes(classes: tuple[str, ...]) -> None:
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise InvalidDataset(f"classes has {len(classes)} names; 2 to {MAX_CLASSES} are needed.")
    for name in classes:
        if not name.isprintable() or not 1 <= len(name) <= MAX_CLASS_NAME_LENGTH:
            raise InvalidDataset(
                f"{name!a:.80} is not a usable class name.",
                remedy=f"Use 1 to {MAX_CLASS_NAME_LENGTH} printable characters.",
            )
    if len(set(classes)) != len(classes):
        raise InvalidDataset("classes has a name twice.")


def _check_labels(labels: NDArray[Any], samples: int, classes: tuple[str, ...]) -> None:
    if labels.dtype.kind not in "iu" or labels.shape != (samples,):
        raise InvalidDataset(
            f"labels has shape {labels.shape} and dtype {labels.dtype}; {samples} integers are needed,"
            " one for each sample.",
            remedy="Give each sample the number of its class; a missing label cannot be marked by NaN.",
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if outside.size:
        raise InvalidDataset(
            f"{outside.size} labels are outside 0 to {len(classes) - 1};"
            f" the first is {labels[outside[0]]}, of sample {outside[0]}."
        )
    counts = np.bincount(labels.astype(np.int64), minlength=len(classes))
    rarest = int(counts.argmin())
    if counts[rarest] < MIN_SAMPLES_PER_CLASS:
        raise InvalidDataset(
            f"Class {classes[rarest]!r} has {counts[rarest]} samples; {MIN_SAMPLES_PER_CLASS} are needed."
        )
