"""Settings: every one documented, every wrong one refused, written as they are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.settings import (
    FILE_NAME,
    Settings,
    parse_assignments,
    parse_settings,
    read_settings,
    write_settings,
)
from fleet.protocol.errors import InvalidConfiguration

PAGE = Path("docs/reference/agent-settings.md")


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE.read_text("utf-8"), re.MULTILINE))
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert rows.keys() == defaults.keys()
    for name, default in defaults.items():
        if isinstance(default, bool):
            assert rows[name] == str(default).lower(), name
        elif isinstance(default, int | float):
            assert float(rows[name]) == default, name


@pytest.mark.parametrize(
    "given",
    [
        {"no_such_setting": 1},
        {"heartbeat_interval_s": 0},
        {"heartbeat_interval_s": -1},
        {"heartbeat_interval_s": "soon"},
        {"trial_maximum_errors": -1},
        {"records_in_flight": 1.5},
        {"backoff_minimum_s": 5, "backoff_maximum_s": 1},
    ],
)
def test_what_cannot_be_used_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfiguration):
        parse_settings(given)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    given = parse_assignments(["trial_s=2", "reserve_free_bytes=0", 'socket_path=/run/a "b" \\ c.sock'])
    write_settings(tmp_path, given)
    settings = read_settings(tmp_path)
    assert (settings.trial_s, settings.reserve_free_bytes) == (2.0, 0)
    assert settings.socket_path == '/run/a "b" \\ c.sock'
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_of_settings_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration):
        write_settings(tmp_path, {"trial_s": "long"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["trial_s = = 2", "trial_s = 'x'", "\xff\x00", "[trial]\ns=1"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text, "latin-1")
    with pytest.raises(InvalidConfiguration):
        read_settings(tmp_path)


@pytest.mark.parametrize("pair", ["trial_s", "=2", ""])
def test_a_pair_needs_a_name_and_a_value(pair: str) -> None:
    with pytest.raises(InvalidConfiguration):
        parse_assignments([pair])
