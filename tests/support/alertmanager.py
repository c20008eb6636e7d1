"""A real Prometheus Alertmanager for tests, as Debian packages it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.needed import need_program
from tests.support.ports import LOOPBACK, ReservedPort
from tests.support.waiting import eventually

ALERTMANAGER_IS_MISSING = (
    "Alertmanager is missing, and this test needs it: apt-get install prometheus-alertmanager"
)
_CONFIGURATION = "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n"


@contextlib.contextmanager
def running_alertmanager(folder: Path) -> Iterator[str]:
    """Run an Alertmanager that tells nobody; give its address."""
    program = need_program("prometheus-alertmanager", "alertmanager", missing=ALERTMANAGER_IS_MISSING)
    configuration = folder / "alertmanager.yml"
    configuration.write_text(_CONFIGURATION)
    reserved = ReservedPort()
    address = f"{LOOPBACK}:{reserved.number}"
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.path={folder / 'storage'}",
                f"--web.listen-address={address}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: _is_ready(f"http://{address}"), "Alertmanager is ready")
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait(10.0)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").is_success
    except httpx.HTTPError:
        return False
