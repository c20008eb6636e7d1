"""An export of captured samples: a zip archive of dataset files and one table to write the labels into.

::

    samples.csv      a line for each sample: where it lies, where it came from, what the model said, no label
    samples-1.npz    the inputs of samples that have one form, in the layout of docs/reference/datasets.md
    samples-2.npz    …

Inputs of one form, the same names, types and sizes, are stacked in one file. As in every dataset file, the
only input of numbers is called ``features`` and the only one of text ``categories``; else inputs keep their
names.

In such a file a text takes as much as the longest beside it: one long text of a device could make an export
of the others huge. So it ends before that, at the latest sample for which there is room.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.npz import write_arrays
from converters.data.samples import CATEGORIES, FEATURES
from fleet.protocol.samples import TEXT, Sample, SampleTensor, array_of, table_bytes
from hub.store.sample_rows import SampleRow

TABLE_FILE = "samples.csv"
MAX_TEXT_BYTES = 128 * 1024**2
"""Most bytes of text in an export, laid out as in its files; far more than one sample's."""
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
        samples: What goes into it, checked when it was taken in; of one model. As many of the first as there
            is room for.
    """
    by_form: dict[_Form, list[tuple[SampleRow, Sample]]] = {}
    for row, sample in _with_room(samples):
        by_form.setdefault(_form(sample), []).append((row, sample))
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


def _form(sample: Sample) -> _Form:
    return tuple((tensor.name, tensor.dtype, tensor.shape) for tensor in sample.inputs)


def _with_room(samples: Sequence[tuple[SampleRow, Sample]]) -> Iterator[tuple[SampleRow, Sample]]:
    """Yield the first samples, as long as their texts have room; at least one."""
    rows, widest = Counter[_Form](), Counter[_Form]()
    for number, (row, sample) in enumerate(samples):
        form, texts = _form(sample), [each for each in sample.inputs if each.dtype == TEXT]
        rows[form] += 1
        widest[form] = max(widest[form], sum(map(table_bytes, texts)))
        if number and sum(rows[each] * widest[each] for each in rows) > MAX_TEXT_BYTES:
            return
        yield row, sample


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
