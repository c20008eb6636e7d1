"""``muster`` commands, run in the process of a test against a running hub."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from hub.cli.app import run
from tests.support.hub import HubProcess

Muster = Callable[..., tuple[str, str]]
"""Runs a command with these arguments, and returns what it printed and what went wrong."""


def muster_on(
    hub: HubProcess,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    token: str | None = None,
    columns: int = 200,
) -> Muster:
    """Return what runs commands on a hub until the end of the test.

    Args:
        hub: A running one.
        monkeypatch: Of the test.
        capsys: Likewise.
        token: Who asks; None for the hub's first administrator.
        columns: How wide the output is, in characters.
    """
    environment = {"MUSTER_URL": hub.url, "MUSTER_TOKEN": token or hub.token, "COLUMNS": str(columns)}

    def call(*arguments: str) -> tuple[str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["muster", *arguments])
        with contextlib.suppress(SystemExit):
            run()
        return capsys.readouterr()

    return call
