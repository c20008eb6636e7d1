"""``tritonclient``, a client that is not ours, in the environment that ``make test`` makes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.needed import leave_out

PYTHON = Path(__file__).parents[2] / ".venv" / "tritonclient" / "bin" / "python"
CHILD = Path(__file__).with_name("triton_child.py")
TRITONCLIENT_IS_MISSING = "tritonclient is missing, and these tests need it: `make test` installs it."


def calls_of_tritonclient(address: str) -> dict[str, Any]:
    """Return what each call of the child returned, by its name.

    Args:
        address: Host and port of a server.
    """
    if not PYTHON.exists():
        leave_out(TRITONCLIENT_IS_MISSING)
    done = subprocess.run([PYTHON, CHILD, address], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    calls: dict[str, Any] = json.loads(done.stdout)
    return calls
