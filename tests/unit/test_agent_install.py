"""The unit of the service: it says what the documentation says, and systemd finds little to expose."""

from __future__ import annotations

import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from agent.system.install import SETTINGS, STATE_PATH, UNIT
from tests.support.systemd import need_systemd

PAGE = Path("docs/guide/service.md")
EXPOSURE_LIMIT = 15
"""Tenths of a point; systemd calls up to 2.0 well protected."""
KNOWN_SINCE_254 = {"RestartSteps", "RestartMaxDelaySec"}


def unit_text() -> str:
    return (files("agent.system") / UNIT).read_text("utf-8")


def settings_of(section: str) -> dict[str, list[str]]:
    """Return a section's settings; one that is given several times has several values."""
    text = unit_text().partition(f"[{section}]\n")[2].partition("\n[")[0]
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture(name="unit")
def unit_fixture(tmp_path: Path) -> Path:
    """The unit with a command that is there."""
    path = tmp_path / UNIT
    path.write_text(unit_text().replace("@EXECUTABLE@", "/bin/true"), "utf-8")
    return path


def test_every_setting_of_the_service_is_documented() -> None:
    documented = set(re.findall(r"`(\w+)=", PAGE.read_text("utf-8")))
    assert settings_of("Service").keys() - documented == set()


def test_the_unit_and_the_installation_mean_the_same_folders() -> None:
    service = settings_of("Service")
    assert Path("var/lib") / service["StateDirectory"][0] == STATE_PATH
    assert Path(SETTINGS["socket_path"]).parent == Path("/run") / service["RuntimeDirectory"][0]
    assert service["Type"] == ["notify"]
    assert int(service["WatchdogSec"][0]) > int(service["TimeoutStopSec"][0])


def test_systemd_understands_the_unit(unit: Path) -> None:
    need_systemd()
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if str(unit) in line]
    assert {re.findall(r"Unknown key '(\w+)'", line)[0] for line in said} <= KNOWN_SINCE_254


def test_systemd_finds_little_exposed(unit: Path) -> None:
    need_systemd()
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-500:]
