"""Tables that leave the hub: CSV that no spreadsheet executes, and Parquet with its types."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from fleet.protocol.errors import InvalidConfiguration
from hub.query.tables import ROWS_AT_ONCE, Column, Kind, Table, check_parquet, csv_parts, parquet_parts

COLUMNS = [
    Column("name"),
    Column("count", Kind.WHOLE),
    Column("share", Kind.NUMBER),
    Column("ok", Kind.FLAG),
    Column("at_s", Kind.TIME),
]
ROW = {"name": "lyon", "count": 3, "share": 0.25, "ok": True, "at_s": 1_700_000_000.0}


def _read(table: Table) -> list[list[str]]:
    return list(csv.reader(io.StringIO(b"".join(csv_parts(table)).decode())))


def test_csv_has_a_heading_times_and_empty_cells() -> None:
    found = _read(Table(COLUMNS, [ROW, {"name": None, "at_s": 0.5}]))
    assert found == [
        ["name", "count", "share", "ok", "at_s"],
        ["lyon", "3", "0.25", "true", "2023-11-14T22:13:20Z"],
        ["", "", "", "", "1970-01-01T00:00:00Z"],
    ]
    assert _read(Table(COLUMNS, [])) == [["name", "count", "share", "ok", "at_s"]]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=x", '=HYPERLINK("x")'])
def test_a_text_is_never_a_formula(text: str) -> None:
    found = _read(Table([Column(text), Column("n", Kind.NUMBER)], [{text: text, "n": -1.5}]))
    assert found == [[f"'{text}", "n"], [f"'{text}", "-1.5"]]


def test_texts_keep_commas_quotes_and_line_breaks() -> None:
    text = 'a,"b"\r\nc\x00'
    assert _read(Table([Column("t")], [{"t": text}]))[1] == [text]


def test_lists_and_mappings_become_one_text() -> None:
    rows: list[dict[str, Any]] = [{"t": ["a", "b"]}, {"t": {"site": "lyon"}}, {"t": [{"x": 1}]}]
    assert [row[0] for row in _read(Table([Column("t")], rows))[1:]] == [
        "a; b",
        '{"site":"lyon"}',
        '[{"x":1}]',
    ]


def test_rows_are_sent_before_all_are_read() -> None:
    taken = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3 * ROWS_AT_ONCE):
            taken.append(number)
            yield ROW

    first = next(csv_parts(Table(COLUMNS, rows())))
    assert len(taken) == ROWS_AT_ONCE
    assert first.count(b"\n") == ROWS_AT_ONCE + 1
    taken.clear()
    next(parquet_parts(Table(COLUMNS, rows())))
    assert len(taken) == ROWS_AT_ONCE


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1])
def test_parquet_has_types_and_every_row(count: int) -> None:
    rows = [{**ROW, "count": number} for number in range(count)]
    found = parquet.read_table(io.BytesIO(b"".join(parquet_parts(Table(COLUMNS, rows)))))
    assert found.schema.types == [
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.bool_(),
        pa.timestamp("us", tz="UTC"),
    ]
    assert found.column("count").to_pylist() == list(range(count))
    if count:
        assert found.column("at_s")[0].value == 1_700_000_000_000_000


def test_parquet_has_missing_cells() -> None:
    found = parquet.read_table(io.BytesIO(b"".join(parquet_parts(Table(COLUMNS, [{}])))))
    assert found.to_pylist() == [dict.fromkeys(ROW)]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InvalidConfiguration, match="parquet"):
        check_parquet()
