"""systemd's own tools, which check the unit offline; no systemd need run."""

from __future__ import annotations

import os
import shutil

import pytest

SYSTEMD_IS_MISSING = "systemd's tools are missing, and these tests need them: apt-get install systemd"


def need_systemd() -> None:
    """Fail in CI without systemd's tools; on a person's machine leave the test out."""
    if all(map(shutil.which, ("systemd-sysusers", "systemd-analyze"))):
        return
    if os.environ.get("CI"):
        pytest.fail(SYSTEMD_IS_MISSING, pytrace=False)
    pytest.skip(SYSTEMD_IS_MISSING)
