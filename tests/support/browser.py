"""A real browser for tests: headless Chromium, a fresh profile each time, no host name that leads anywhere.

A missing Chromium is a failure in CI; on a person's machine its tests are left out, and the end says so.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.needed import need_program

CHROMIUM_IS_MISSING = "Chromium is missing, and these tests need it. Get it with: apt-get install chromium"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
)
_BY_THE_BROWSER_ITSELF = "not an origin"


class Visit(NamedTuple):
    """What became of a page in the browser.

    Attributes:
        dom: The document as HTML, after it was loaded.
        console: Messages on its console: errors of scripts, violations of its policy.
        requests: Addresses that the page asked for, itself aside.
    """

    dom: str
    console: list[str]
    requests: set[str]


def require_chromium() -> str:
    """Return the path of the installed Chromium.

    Without one, the test fails in CI. On a person's machine it is skipped, and the end of the run says so.
    """
    return need_program("chromium", "chromium-browser", missing=CHROMIUM_IS_MISSING)


def visit(page: Path, folder: Path) -> Visit:
    """Open a page.

    Args:
        page: The file.
        folder: A new one, for the browser's own files.
    """
    log = folder / "requests.json"
    done = _run(page, folder, f"--log-net-log={log}", "--dump-dom")
    console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
    return Visit(done.stdout, console, _requests(log))


def screenshot(page: Path, folder: Path, *, width: int, height: int, dark: bool = False) -> bytes:
    """Return a picture of a page as PNG.

    Args:
        page: The file.
        folder: A new one, for the browser's own files.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
        dark: Whether a dark colour scheme is asked for.
    """
    picture = folder / "page.png"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    _run(page, folder, f"--window-size={width},{height}", scheme, f"--screenshot={picture}")
    return picture.read_bytes()


def _run(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [require_chromium(), *_FLAGS, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def _requests(log: Path) -> set[str]:
    """Return the addresses in a network log that a page asked for, not the browser for its own ends."""
    events = json.loads(log.read_text())["events"]
    parameters = [event["params"] for event in events if "initiator" in event.get("params", {})]
    return {each["url"] for each in parameters if each["initiator"] != _BY_THE_BROWSER_ITSELF}
