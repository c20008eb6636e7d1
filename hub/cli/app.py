"""The tree of commands, and the one place where an error becomes a line and an exit code.

``hub``, ``model convert``, ``rollout schema``, ``simulate`` and ``demo`` work on this machine alone; all
others speak to the hub's HTTP API and so work from anywhere.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from fleet.protocol.errors import MusterError
from hub.cli import (
    alerts,
    datasets,
    devices,
    fleet,
    hub,
    models,
    privacy,
    remote,
    rollout_back,
    rollouts,
    samples,
    tags,
    timeline,
)
from hub.cli.client import DEFAULT_URL, Connection
from hub.cli.convert import convert
from hub.cli.demo import demo
from hub.cli.output import harmless
from hub.cli.simulate import simulate

app = typer.Typer(
    name="muster",
    help="Manage the life of machine-learning models on fleets of edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(hub.app, name="hub")
app.add_typer(datasets.app, name="dataset")
app.add_typer(models.app, name="model")
models.app.command("convert")(convert)
models.app.command("capture")(samples.capture)
app.add_typer(devices.app, name="device")
devices.app.command("log-level")(remote.log_level)
devices.app.command("hold")(remote.hold)
devices.app.command("release")(remote.release)
devices.app.command("lift-quarantine")(remote.lift_quarantine)
devices.app.command("tag", context_settings=tags.TAG_SETTINGS)(tags.tag)
devices.app.command("timeline")(timeline.timeline)
devices.app.command("diagnose")(remote.diagnose)
devices.app.command("count-noise")(privacy.count_noise)
app.add_typer(rollouts.app, name="rollout")
app.add_typer(samples.app, name="samples")
app.add_typer(fleet.app, name="fleet")
app.add_typer(alerts.app, name="alerts")
app.command("rollback")(rollout_back.rollback)
app.command("simulate")(simulate)
app.command("demo")(demo)


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="MUSTER_URL", help="Where the hub's API is.")] = DEFAULT_URL,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="MUSTER_TOKEN_FILE", help="File that holds your API token; or set MUSTER_TOKEN itself."
        ),
    ] = None,
) -> None:
    """Say where the hub is and who you are."""
    context.obj = Connection(url, token_file)
    context.call_on_close(context.obj.close)


def run() -> int:
    """Run the command that the process was started with and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without µ gets a question mark, not a traceback
    try:
        app()
    except MusterError as error:
        told = harmless(f"error: {error} [{error.code}]")
        print(told, file=sys.stderr)  # noqa: T201 - a command line speaks on stderr
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    return 0
