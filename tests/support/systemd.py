"""systemd's own tools, which check the unit offline; no systemd need run."""

from __future__ import annotations

import shutil

from tests.support.needed import leave_out

SYSTEMD_IS_MISSING = "systemd's tools are missing, and these tests need them: apt-get install systemd"


def need_systemd() -> None:
    """Fail in CI without systemd's tools; on a person's machine leave the test out."""
    if all(map(shutil.which, ("systemd-sysusers", "systemd-analyze"))):
        return
    leave_out(SYSTEMD_IS_MISSING)
