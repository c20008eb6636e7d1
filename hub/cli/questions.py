"""Questions before what cannot be taken back: asked on a terminal only, and not with ``--yes``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hub.cli.output import console

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask, also on a terminal.")]


def asks() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty() and console.is_terminal


def refuse() -> None:
    """End the command because the answer was no."""
    console.print("Nothing was done.")
    raise typer.Exit(1)
