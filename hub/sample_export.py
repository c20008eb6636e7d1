"""An export of captured samples: a zip archive of dataset files and one table to write the labels into.

::

    samples.csv      a line for each sample: where it lies, where it came from, what the model said, no label
    samples-1.npz    the inputs of samples that have one form, in the layout of docs/reference/datasets.md
    samples-2.npz    …

Inputs of one form, the same names, types and sizes, are stacked in one file. As in every dataset file, the
only input of numbers is called ``features`` and the only one of text ``categories``; else inputs keep their
names.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.npz import write_arrays
from converters.data.samples import CATEGORIES, FEATURES
from fleet.protocol.samples import TEXT, Sample, SampleTensor, array_of
from hub.store.sample_rows import SampleRow

TABLE_FILE = "samples.csv"
COLUMNS = (
    "file",
    "row",
    "sample",
    "device",
    "model",
    "version",
    "captured_at",
    "reason",
    "feature",
    "redaction",
    "predicted",
    "confidence",
    "label",
)

_LAST_S = datetime.max.replace(tzinfo=UTC).timestamp() - 1.0
"""Devices' clocks may be thousands of years ahead."""

_Form = tuple[tuple[str, str, tuple[int, ...]], ...]


def export(samples: Sequence[tuple[SampleRow, Sample]]) -> bytes:
    """Return the archive.

    Args:
        samples: What goes into it, checked when it was taken in; of one model.
    """
    by_form: dict[_Form, list[tuple[SampleRow, Sample]]] = {}
    for row, sample in samples:
        form = tuple((tensor.name, tensor.dtype, tensor.shape) for tensor in sample.inputs)
        by_form.setdefault(form, []).append((row, sample))
    lines: list[Sequence[Any]] = [COLUMNS]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, together in enumerate(by_form.values(), start=1):
            name = f"samples-{number}.npz"
            archive.writestr(name, _dataset([sample for _, sample in together]))
            lines += [_line(name, place, row) for place, (row, _) in enumerate(together)]
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(lines)
        archive.writestr(TABLE_FILE, table.getvalue())
    return stream.getvalue()


def _dataset(samples: Sequence[Sample]) -> bytes:
    """Return the dataset file of samples of one form."""
    stream = io.BytesIO()
    stacked = zip(*(sample.inputs for sample in samples), strict=True)
    names = _names(samples[0].inputs)
    arrays = {name: _stacked(tensors) for name, tensors in zip(names, stacked, strict=True)}
    write_arrays(stream, arrays)
    return stream.getvalue()


def _names(tensors: Sequence[SampleTensor]) -> list[str]:
    texts = sum(tensor.dtype == TEXT for tensor in tensors)
    if texts > 1 or len(tensors) - texts > 1:
        return [tensor.name for tensor in tensors]
    return [CATEGORIES if tensor.dtype == TEXT else FEATURES for tensor in tensors]


def _stacked(tensors: Sequence[SampleTensor]) -> NDArray[Any]:
    together = np.concatenate([array_of(tensor) for tensor in tensors])
    return together.astype(str) if together.dtype == object else together


def _line(file: str, place: int, row: SampleRow) -> Sequence[Any]:
    captured_at = datetime.fromtimestamp(min(row.at_s, _LAST_S), UTC).isoformat(timespec="seconds")
    return (
        file,
        place,
        row.number,
        row.device_id,
        row.model,
        row.version,
        captured_at,
        row.reason.value,
        row.feature,
        row.redaction or "",
        "" if row.category is None else row.category,
        "" if row.confidence is None else f"{row.confidence:.6g}",
        "",
    )
