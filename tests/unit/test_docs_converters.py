"""The reference of the converters is complete: every target, kind of file, task and operator stands in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from converters.sources import FILE_KINDS
from converters.target import PARITY_TOLERANCE, CalibrationMethod
from converters.targets import TARGETS
from converters.tflite.operators import OPERATORS
from fleet.protocol.manifest import Task

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "converters.md").read_text()


def _rows(heading: str) -> list[list[str]]:
    section = re.split(r"^##+ ", PAGE.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_table_of_targets_is_the_registry() -> None:
    assert [row[0] for row in _rows("Targets")] == [f"`{name}`" for name in TARGETS]
    for row in _rows("Targets"):
        assert row[3].startswith("yes") or not TARGETS[row[0].strip("`")].calibrated


def test_every_kind_of_file_is_listed() -> None:
    sources = " ".join(" ".join(row) for row in _rows("Sources"))
    for kind in FILE_KINDS:
        assert all(f"`{suffix}`" in sources for suffix in kind.suffixes)


def test_the_operators_of_tflite_are_those_that_can_be_written() -> None:
    listed = [
        name.split(" ")[0] for row in _rows("Operators of the TFLite targets") for name in row[1].split(", ")
    ]
    assert sorted(listed) == sorted(OPERATORS)


def test_tasks_methods_and_tolerances_are_as_in_the_code() -> None:
    assert {row[0] for row in _rows("The metric")} == set(get_args(Task))
    assert {row[0].strip("`") for row in _rows("Calibration")} == set(get_args(CalibrationMethod))
    parity = _rows("What is demanded")[0]
    assert [float(parity[1]), float(parity[2])] == [PARITY_TOLERANCE["fp32"], PARITY_TOLERANCE["fp16"]]
