"""What a test needs of the machine, and what becomes of the test where it is missing."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def leave_out(missing: str) -> NoReturn:
    """End a test for which something is missing: it fails in CI, and is skipped on a person's machine.

    Args:
        missing: What is missing, and how it comes here.
    """
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def need_program(*names: str, missing: str) -> str:
    """Return the path of the first of these programs that there is; else `leave_out`."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    leave_out(missing)
