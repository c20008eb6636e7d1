"""Which cohorts a device belongs to, and the setting that says by what."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.cohorts import cohorts_of, grouping
from fleet.protocol.errors import InvalidConfiguration
from hub.settings import Settings, read_settings, write_settings


def test_a_device_belongs_to_what_it_has_a_value_of() -> None:
    found = cohorts_of(
        {"site": "lyon", "owner": "x"}, hardware="pi4", architecture="aarch64", group_by=("site", "floor")
    )
    assert found == {"hardware": "pi4", "architecture": "aarch64", "site": "lyon"}


def test_what_an_operator_says_has_precedence_and_nothing_is_no_value() -> None:
    given = cohorts_of({"hardware": "line-3"}, hardware="pi4", architecture="", group_by=("hardware",))
    assert given == {"hardware": "line-3"}
    assert cohorts_of({}, hardware="", architecture="", group_by=()) == {}


def test_each_attribute_counts_once() -> None:
    assert grouping(("site", "hardware", "site")) == ("hardware", "architecture", "site")


def test_the_setting_is_kept_and_checked(tmp_path: Path) -> None:
    write_settings(tmp_path, Settings(group_by=("site", "line")))
    assert read_settings(tmp_path).group_by == ("site", "line")
    (tmp_path / "hub.toml").write_text('group_by = ["Not a name"]\n')
    with pytest.raises(InvalidConfiguration):
        read_settings(tmp_path)
