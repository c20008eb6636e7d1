"""``muster demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from hub.cli.output import console


def demo(
    devices: Annotated[int, typer.Option(min=4, max=64, help="How many cameras.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=10_000, help="Fixes every random choice.")] = 0,
    stay: Annotated[bool, typer.Option("--stay", help="Leave everything running until Ctrl-C.")] = False,
) -> None:
    """Run the whole story here: train, roll out, catch a bad version, find drift, roll back.

    The exit code is 0 only if every step came true by what the devices reported.
    """
    import asyncio

    from hub.demo.play import play

    if not asyncio.run(play(console, device_count=devices, seed=seed, stay=stay)):
        raise typer.Exit(1)
