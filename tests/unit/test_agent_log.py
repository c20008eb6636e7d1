"""The log: one object a line, with the documented fields, whatever is logged."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.log import log_to_stderr

PAGE = Path("docs/guide/service.md")


class Terminal(io.StringIO):
    """Standard error of a program that a person started."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.getLogger("tuf").setLevel(logging.NOTSET)


def entries_of(monkeypatch: pytest.MonkeyPatch, log: Any, level: str = "debug") -> list[dict[str, str]]:
    """Return what is written while something is logged, decoded line by line."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_stderr(level, "json")
    log(logging.getLogger("agent.part"))
    return [msgspec.json.decode(line) for line in stream.getvalue().split("\n") if line]


def test_an_entry_has_the_documented_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    def log(logger: logging.Logger) -> None:
        try:
            msgspec.json.decode(b"{")
        except msgspec.DecodeError:
            logger.exception("Part %d failed.", 3)

    (entry,) = entries_of(monkeypatch, log)
    fields = re.findall(r"^\| `(\w+)` \| ", PAGE.read_text("utf-8"), re.MULTILINE)
    assert list(entry) == fields
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "agent.part", "Part 3 failed.")
    assert entry["exception"].startswith("Traceback")
    assert "DecodeError" in entry["exception"]
    assert datetime.fromisoformat(entry["time"]).utcoffset() is not None


@pytest.mark.parametrize("text", ["two\nlines\r\u2028three", "a file \udcff of odd bytes", '"quoted" \\ \0'])
def test_any_text_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (entry,) = entries_of(monkeypatch, lambda logger: logger.info("%s", text))
    assert entry["message"] == text.encode("utf-8", "backslashreplace").decode()
    assert entry.keys() == {"time", "level", "logger", "message"}


@pytest.mark.parametrize(("level", "told"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_the_least_that_is_told(monkeypatch: pytest.MonkeyPatch, level: str, told: int) -> None:
    def log(logger: logging.Logger) -> None:
        for name in ("debug", "info", "warning", "error"):
            logger.log(logging.getLevelNamesMapping()[name.upper()], "said")

    assert len(entries_of(monkeypatch, log, level)) == told


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", Terminal(), False),
        ("auto", io.StringIO(), True),
        ("json", Terminal(), True),
        ("text", io.StringIO(), False),
    ],
)
def test_people_get_text_and_programs_json(
    monkeypatch: pytest.MonkeyPatch, form: str, stream: io.StringIO, is_json: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_stderr("info", form)
    logging.getLogger("agent.part").info("said")
    assert stream.getvalue().startswith("{") == is_json
    assert stream.getvalue().count("\n") == 1
