"""``muster`` commands, run in the process of a test: to start one takes longer than most commands."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING
from unittest import mock

from hub.cli.app import run

if TYPE_CHECKING:
    import pytest

    from tests.support.hub import HubProcess

Muster = Callable[..., tuple[str, str]]
"""Runs a command with these arguments, and returns what it printed and what went wrong."""


def muster_here(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of this process's environment that is Muster's; return how it ended.

    Args:
        arguments: Those after ``muster``.
        environment: What the command finds besides.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {**kept, **environment}, clear=True),
        mock.patch("sys.argv", ["muster", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = run()
        except SystemExit as end:
            assert end.code is None or isinstance(end.code, int)
            code = end.code or 0
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


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
