"""Prometheus' own tool, which checks metrics, rules and their tests without any server."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.needed import need_program

PROMTOOL_IS_MISSING = "promtool is missing, and these tests need it: apt-get install prometheus"


def promtool(*arguments: str | Path, text: str = "") -> str:
    """Run it and return what it said; fails the test if it found anything wrong.

    Args:
        arguments: Of the command.
        text: For its standard input.
    """
    program = need_program("promtool", missing=PROMTOOL_IS_MISSING)
    run = subprocess.run(
        [program, *arguments], input=text, capture_output=True, text=True, timeout=60.0, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr
