"""Answers as tables that leave the hub: CSV and Parquet, written piece by piece.

CSV is RFC 4180 in UTF-8, with a heading. A spreadsheet takes a cell that begins with ``= + - @``, a tab or a
carriage return for a formula, and names of sites come from elsewhere; so a *text* that begins so gets an
apostrophe before it (OWASP, "CSV Injection"). Numbers are left as they are. Times are ISO 8601 in UTC.

Parquet is written in row groups, each sent as soon as it is complete. It needs the extra ``parquet``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from fleet.protocol.errors import InvalidConfiguration
from hub.query.times import iso

ROWS_AT_ONCE = 5000
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Row = Mapping[str, Any]


class Kind(StrEnum):
    """What the cells of a column are; each may be missing. Texts also stand for lists and mappings."""

    TEXT = "text"
    WHOLE = "whole"
    NUMBER = "number"
    FLAG = "flag"
    TIME = "time"


class Column(NamedTuple):
    """A column of a table: the name of a field, and what its cells are."""

    name: str
    kind: Kind = Kind.TEXT


class Table(NamedTuple):
    """Rows with their columns."""

    columns: Sequence[Column]
    rows: Iterable[Row]


def csv_parts(table: Table) -> Iterator[bytes]:
    """Yield a table as CSV, a part for every so many rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([_plain(column.name) for column in table.columns])
    rows = iter(table.rows)
    while True:
        some = list(islice(rows, ROWS_AT_ONCE))
        writer.writerows(
            [_csv_cell(column, row.get(column.name)) for column in table.columns] for row in some
        )
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
        if len(some) < ROWS_AT_ONCE:
            return


def check_parquet() -> None:
    """Raise `InvalidConfiguration` if Parquet cannot be written here: before an answer has begun."""
    try:
        import pyarrow.parquet  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise InvalidConfiguration(
            "Parquet is written by pyarrow, which is not installed beside the hub.",
            remedy="Install the extra `parquet` there: pip install 'muster[parquet]'; or ask for CSV.",
        ) from error


def parquet_parts(table: Table) -> Iterator[bytes]:
    """Yield a table as Parquet, a part for every row group, then the footer; see `check_parquet`."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {
        Kind.TEXT: pa.string(),
        Kind.WHOLE: pa.int64(),
        Kind.NUMBER: pa.float64(),
        Kind.FLAG: pa.bool_(),
        Kind.TIME: pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in table.columns])
    sink = io.BytesIO()
    written = pa.PythonFile(_Ends(sink), mode="w")
    rows = iter(table.rows)
    with parquet.ParquetWriter(written, schema) as writer:
        while some := list(islice(rows, ROWS_AT_ONCE)):
            columns = [[_parquet_cell(c, row.get(c.name)) for row in some] for c in table.columns]
            arrays = [pa.array(cells, type=f.type) for cells, f in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield _taken(sink)
    yield _taken(sink)


class _Ends(io.RawIOBase):
    """A file to which one only appends; it knows its length although what was written is taken away.

    Args:
        sink: Holds what was written and not taken yet.
    """

    def __init__(self, sink: io.BytesIO) -> None:
        super().__init__()
        self._sink = sink
        self._length = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Append."""
        size = self._sink.write(data)
        self._length += size
        return size

    def tell(self) -> int:
        """Return how much was written in all."""
        return self._length


def _taken(sink: io.BytesIO) -> bytes:
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data


def _csv_cell(column: Column, value: Any) -> Any:
    if value is None:
        return ""
    match column.kind:
        case Kind.TIME:
            return iso(value)
        case Kind.FLAG:
            return "true" if value else "false"
        case Kind.TEXT:
            return _plain(_text(value))
    return value


def _parquet_cell(column: Column, value: Any) -> Any:
    if value is None:
        return None
    match column.kind:
        case Kind.TIME:
            return round(value * 1e6)
        case Kind.TEXT:
            return _text(value)
        case Kind.NUMBER:
            return float(value)
    return value


def _text(value: Any) -> str:
    """Return a value as one text: a list with commas, a mapping or a list of such as JSON."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "; ".join(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
