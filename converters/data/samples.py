"""Samples: what a conversion calibrates quantization with and judges every variant by.

They come from a dataset file (see `converters.data.dataset`) or from arrays. Compared with a dataset for
training they may lack labels, have columns of text, targets in place of classes, or an array for each input:

==============  ======================  ======================================================================
array           dtype, shape            meaning
==============  ======================  ======================================================================
``features``    numbers, (N, …)         for the model's input of numbers
``categories``  text, (N, M)            for its input of text
``labels``      integers, (N,)          number of each sample's class; of an anomaly 1, of a normal sample 0
``classes``     text, (C,)              what the classes are called; only with labels
``targets``     numbers, (N, T)         the values that a regression should give
``layout``      text, ()                what the axes of the input of numbers are, see `fleet.drift.inputs`
*any other*     numbers or text, (N,…)  for the input of that name
==============  ======================  ======================================================================

All random choices come from `numpy.random.RandomState`, whose streams never change (NEP 19).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.dataset import LAYOUT, Dataset, checked_digest, layout_in, opened
from converters.data.npz import read_arrays
from fleet.protocol.errors import InvalidDataset
from fleet.protocol.manifest import Signature, Tensor

Inputs = dict[str, NDArray[Any]]
"""A batch: an array for each input of a model, by the tensor's name."""

FEATURES = "features"
CATEGORIES = "categories"
_NO_INPUTS = ("labels", "classes", "targets", LAYOUT)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples, with what is known of the right answers.

    Attributes:
        arrays: Inputs by the name of the dataset's array, each of shape (N, …): float32, whole numbers as
            they came, or text as objects.
        labels: int64, shape (N,); None where there are none.
        classes: Names of the classes; empty without labels, or where they have no names.
        targets: float32, shape (N, T); None where there are none.
        sha256: Digest of the file that they came from; empty for arrays.
        name: What messages call that file; empty for arrays.
        layout: What the axes of the input of numbers are; empty where it is not declared.
    """

    arrays: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    targets: NDArray[np.float32] | None = None
    sha256: str = field(default="")
    name: str = ""
    layout: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, indices: NDArray[np.intp]) -> Samples:
        """Return the samples with these indices, shape (M,), in their order."""
        return replace(
            self,
            arrays={name: array[indices] for name, array in self.arrays.items()},
            labels=None if self.labels is None else self.labels[indices],
            targets=None if self.targets is None else self.targets[indices],
        )


def samples_of(dataset: Dataset) -> Samples:
    """Return a dataset for training as samples."""
    arrays = {FEATURES: dataset.features}
    return Samples(arrays, dataset.labels, dataset.classes, layout=dataset.layout)


def read_samples(path: Path, *, sha256: str | None = None) -> Samples:
    """Read samples from a dataset file.

    Args:
        path: The file.
        sha256: Its digest in hexadecimal, checked before anything is parsed; None where none is known yet.

    Raises:
        NotFound: There is no such file.
        DigestMismatch: It is not the file that was registered.
        InvalidDataset: It does not hold samples.
    """
    with opened(path) as stream:
        found = checked_digest(stream, sha256)
        with _naming(path.name):
            return replace(checked_samples(read_arrays(stream), sha256=found), name=path.name)


def checked_samples(arrays: Mapping[str, NDArray[Any]], *, sha256: str = "") -> Samples:
    """Return samples of these arrays, laid out as at the head of this file, if they make any.

    Args:
        arrays: By name.
        sha256: Digest of the file that they came from.

    Raises:
        InvalidDataset: They do not; the message says what is wrong with them.
    """
    inputs = {name: _checked_input(name, array) for name, array in arrays.items() if name not in _NO_INPUTS}
    each_sample = {name: array for name, array in arrays.items() if name not in ("classes", LAYOUT)}
    counts = {name: len(array) for name, array in each_sample.items() if array.ndim}
    if not inputs or len(set(counts.values())) != 1 or 0 in counts.values():
        described = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise InvalidDataset(
            f"The dataset needs arrays of equally many samples, one of them an input; it has {described}."
        )
    classes = tuple(str(name) for name in arrays["classes"].ravel()) if "classes" in arrays else ()
    labels = _checked_labels(arrays["labels"], classes) if "labels" in arrays else None
    targets = _checked_input("targets", arrays["targets"]) if "targets" in arrays else None
    if targets is not None:
        if targets.dtype != np.float32 or not np.isfinite(targets).all():
            raise InvalidDataset("targets must be finite numbers.")
        targets = targets.reshape(len(targets), -1)
    return Samples(inputs, labels, classes, targets, sha256, layout=layout_in(arrays))


def bind(samples: Samples, signature: Signature) -> Inputs:
    """Return the samples in the form that a model takes.

    Args:
        samples: N of them.
        signature: The model's.

    Returns:
        An array of shape (N, …) for each input, of its type.

    Raises:
        InvalidDataset: An input has no array, or the array's shape or values do not suit it; or a class has
            another number than in the model.
    """
    with _naming(samples.name):
        _check_classes(samples.classes, signature.classes)
        return {tensor.name: _bound(samples, tensor, signature) for tensor in signature.inputs}


def split(samples: Samples, *, share: float, seed: int) -> tuple[Samples, Samples]:
    """Draw a share of the samples, of every class alike where there are labels.

    Args:
        samples: At least two.
        share: Greater than 0, less than 1; each part gets at least one sample.
        seed: 0 to 2^32 - 1.

    Returns:
        The share, and the rest, both in the samples' order.

    Raises:
        InvalidDataset: There are fewer than two samples.
    """
    if len(samples) < 2:
        raise InvalidDataset("One sample cannot be split into a part for calibration and one for judging.")
    random = np.random.RandomState(seed)
    strata = np.zeros(len(samples), dtype=np.int64) if samples.labels is None else samples.labels
    chosen = np.zeros(len(samples), dtype=bool)
    for stratum in np.unique(strata):
        members = random.permutation(np.flatnonzero(strata == stratum))
        chosen[members[: round(share * len(members))]] = True
    if chosen.all() or not chosen.any():
        chosen[0] = not chosen[0]
    return samples.take(np.flatnonzero(chosen)), samples.take(np.flatnonzero(~chosen))


def evenly_spaced(inputs: Inputs, limit: int) -> Inputs:
    """Return at most ``limit`` samples of a batch, evenly spaced over it."""
    count = len(next(iter(inputs.values())))
    indices = np.linspace(0, count - 1, min(count, limit)).astype(np.intp)
    return {name: array[indices] for name, array in inputs.items()}


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say in errors which file they are about, where there is one."""
    try:
        yield
    except InvalidDataset as error:
        if not name:
            raise
        raise InvalidDataset(f"{name}: {error.message}", remedy=error.remedy) from error


def _checked_input(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 0:
        raise InvalidDataset(f"{name} is a single value, not an array of samples.")
    if array.dtype.kind in "UO":
        try:
            "".join(array.ravel().tolist()).encode()
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidDataset(f"{name} holds values that are neither numbers nor text.") from error
        return array.astype(object)
    if array.dtype.kind not in "iufb":
        raise InvalidDataset(f"{name} has dtype {array.dtype}; numbers or text are needed.")
    if array.dtype.kind in "iu" and name != "targets":
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused
        converted = np.ascontiguousarray(array, dtype=np.float32)
    if np.isinf(converted).any():
        raise InvalidDataset(f"{name} has values that are infinite in float32.")
    return converted


def _checked_labels(labels: NDArray[Any], classes: tuple[str, ...]) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InvalidDataset(
            f"labels has shape {labels.shape} and dtype {labels.dtype}; integers of shape (N,) are needed.",
            remedy="Give the number of each sample's class, from 0, and their names as the array classes.",
        )
    numbers = labels.astype(np.int64)  # what is too large for it becomes negative
    if (numbers < 0).any() or (classes and (numbers >= len(classes)).any()):
        raise InvalidDataset(
            f"labels has numbers outside 0 to {len(classes) - 1}."
            if classes
            else "labels has numbers below 0.",
            remedy="Number the classes from 0; an anomaly is 1, a normal sample 0.",
        )
    return numbers


def _check_classes(named: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Check that a class that dataset and model both know has one number; names of their own are theirs."""
    for number, name in enumerate(named):
        if name in known and known.index(name) != number:
            raise InvalidDataset(
                f"In the dataset class {number} is {name!r:.80}, in the model class {known.index(name)} is.",
                remedy="Number the dataset's labels in the order of the model's output.",
            )


def _bound(samples: Samples, tensor: Tensor, signature: Signature) -> NDArray[Any]:
    array = samples.arrays.get(tensor.name)
    if array is None:
        text = tensor.dtype == "str"
        alike = [other for other in signature.inputs if (other.dtype == "str") == text]
        array = samples.arrays.get(CATEGORIES if text else FEATURES) if len(alike) == 1 else None
    if array is None:
        raise InvalidDataset(
            f"The dataset has no array for the model's input {tensor.name!r}; it has"
            f" {', '.join(samples.arrays)}.",
            remedy=f"Add an array named {tensor.name!r} of shape (N, {_sizes(tensor)}).",
        )
    if (array.dtype == object) != (tensor.dtype == "str"):
        raise InvalidDataset(f"Input {tensor.name!r} takes {tensor.dtype}; the dataset has {array.dtype}.")
    bound = _shaped(array, tensor)
    if tensor.dtype == "str":
        return bound
    if not tensor.missing and bound.dtype.kind == "f" and (bad := _first_missing(bound)) is not None:
        raise InvalidDataset(
            f"Sample {bad} of the dataset has missing values (NaN), and input {tensor.name!r} takes none.",
            remedy="Fill or remove them, or put an imputer into the model.",
        )
    return _cast(bound, tensor)


def _cast(array: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return numbers in an input's type; what is no such number is refused, as devices refuse it."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(tensor.dtype)
    wrong = np.isinf(cast) if cast.dtype.kind == "f" else cast != array
    if wrong.any():
        bad = int(np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))[0])
        raise InvalidDataset(
            f"Sample {bad} of the dataset has values that input {tensor.name!r} ({tensor.dtype}) cannot hold."
        )
    return cast


def _shaped(array: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    sizes = tensor.shape[1:]
    if len(sizes) == array.ndim - 1 and all(
        w in (-1, s) for w, s in zip(sizes, array.shape[1:], strict=True)
    ):
        return array
    given = array.shape[1:]
    same = -1 not in sizes and int(np.prod(sizes)) == int(np.prod(given))
    # Images kept as rows, rows kept as images, or a dimension of 1 more or less: all else mixes up the axes.
    if same and (
        1 in {len(given), len(sizes)} or [s for s in sizes if s != 1] == [s for s in given if s != 1]
    ):
        return array.reshape(len(array), *sizes)
    raise InvalidDataset(
        f"Input {tensor.name!r} takes samples of shape ({_sizes(tensor)}); the dataset's have {given}.",
        remedy="Bring the axes into the model's order, with numpy.transpose." if same else "",
    )


def _first_missing(array: NDArray[Any]) -> int | None:
    bad = np.flatnonzero(np.isnan(array.reshape(len(array), -1)).any(axis=1))
    return int(bad[0]) if bad.size else None


def _sizes(tensor: Tensor) -> str:
    return ", ".join("?" if size == -1 else str(size) for size in tensor.shape[1:])
