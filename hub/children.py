"""How the hub's processes start others from the hub's own code: broker, training, the demo's hub and agents."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGES_FOLDER = Path(__file__).parents[1]
"""What holds our packages: a source tree, or where they were installed."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line of ``python -m``; ``-P`` keeps the working folder's files from being imported."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return this process's environment, in which Python finds our packages whatever the working folder is."""
    paths = (str(PACKAGES_FOLDER), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
