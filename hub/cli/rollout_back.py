"""``muster rollback``: the emergency exit, which brings devices back to an older version."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.markup import escape

from fleet.protocol.errors import InvalidInput
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console
from hub.cli.rollout_pictures import ENDED, print_rollout
from hub.cli.rollout_watch import POLL_S
from hub.cli.rollout_words import Reason, Yes, asks, refuse


def rollback(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Name of the model.")] = None,
    named: Annotated[str | None, typer.Option("--model", help="Likewise.")] = None,
    to: Annotated[
        int | None,
        typer.Option(min=1, help="A released version; the newest below what devices run if left out."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only devices that this target means.")] = None,
    reason: Reason = "",
    devices_per_minute: Annotated[
        float | None, typer.Option(help="Most orders in a minute; all at once if left out.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until every device is back.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    *,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring devices that run a newer version of a model back to an older one, now."""
    client = client_of(context)
    if (model is None) == (named is None):
        raise InvalidInput("Say which model, once: muster rollback MODEL, or --model MODEL.")
    body: dict[str, Any] = {"model": model or named, "to": to, "target": target}
    told = client.post("/rollbacks/dry-run", body)
    if dry_run:
        if as_json:
            print_rollout(told, as_json=True)
        else:
            console.print(escape(told["sentence"]))
        return
    if not as_json:
        console.print(escape(told["sentence"]))
        if not yes and asks() and not typer.confirm("Roll back?"):
            refuse()
    body |= {"to": told["to"], "reason": reason, "devices_per_minute": devices_per_minute}
    rollout = client.post("/rollbacks", body)
    if wait:
        with console.status(f"rolling {body['model']} back to version {told['to']}"):
            while rollout["status"] not in ENDED:
                time.sleep(POLL_S)
                rollout = client.get(f"/rollouts/{rollout['number']}")
    print_rollout(rollout, as_json=as_json)
    if wait and rollout["status"] != "SUCCEEDED":
        raise typer.Exit(1)
