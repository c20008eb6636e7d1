"""A package that lists its files lists those that there are, so that whoever looks for one finds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTED = [
    "agent/life",
    "agent/runtimes",
    "agent/telemetry",
    "converters/judging",
    "fleet/drift",
    "fleet/protocol",
    "fleet/quality",
    "hub/alerts",
    "hub/broker",
    "hub/query",
    "hub/rollouts",
    "hub/simulation",
    "hub/telemetry",
]
"""Packages whose head names every file."""


@pytest.mark.parametrize("package", LISTED)
def test_a_package_lists_its_files(package: str) -> None:
    folder = ROOT / package
    named = re.findall(r"\b(\w+\.py)\b", (folder / "__init__.py").read_text(encoding="utf-8"))
    assert sorted(set(named)) == sorted(file.name for file in folder.glob("*.py") if file.stem != "__init__")
