"""Prometheus' own tool, which checks metrics, rules and their tests without any server."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROMTOOL_IS_MISSING = "promtool is missing, and these tests need it: apt-get install prometheus"


def promtool(*arguments: str | Path, text: str = "") -> str:
    """Run it and return what it said; fails the test if it found anything wrong.

    Args:
        arguments: Of the command.
        text: For its standard input.
    """
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(PROMTOOL_IS_MISSING, pytrace=False)
        pytest.skip(PROMTOOL_IS_MISSING)
    run = subprocess.run(
        [program, *arguments], input=text, capture_output=True, text=True, timeout=60.0, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr
