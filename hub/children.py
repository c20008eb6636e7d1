"""How child processes are started from our own code: the broker, trainings, the demo's hub and agents."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGES_FOLDER = Path(__file__).parents[1]
"""What holds our packages: a source tree, or where they were installed."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line of ``python -m``; with ``-P`` nothing is imported from the working folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return this process's environment, where Python finds our packages whatever the working folder is."""
    paths = (str(_PACKAGES_FOLDER), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
