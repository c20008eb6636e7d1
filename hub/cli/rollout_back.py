"""``muster rollback``: the emergency exit, which brings devices back to an older version."""

from __future__ import annotations

from collections import deque
from typing import Annotated, Any

import typer
from rich.markup import escape

from fleet.protocol.errors import HubUnavailable, InvalidInput
from hub.cli.client import Client, client_of
from hub.cli.output import JsonFlag, console
from hub.cli.questions import Yes, asks, refuse
from hub.cli.rollout_pictures import print_rollout
from hub.cli.rollout_watch import states
from hub.cli.rollout_words import Reason


def rollback(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Name of the model.")] = None,
    named: Annotated[str | None, typer.Option("--model", help="Likewise.")] = None,
    to: Annotated[
        int | None,
        typer.Option(min=1, help="A released version; the newest proven one below if left out."),
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
            _print_meant(told)
        return
    if not as_json:
        _print_meant(told)
        if not yes and asks() and not typer.confirm("Roll back?"):
            refuse()
    body |= {"to": told["to"], "reason": reason, "devices_per_minute": devices_per_minute}
    rollout = client.post("/rollbacks", body)
    if wait:
        if not as_json:
            console.print(f"Rollout {rollout['number']} brings them back.")
        with console.status(f"rolling {body['model']} back to version {told['to']}"):
            rollout = _ended(client, rollout["number"])
    print_rollout(rollout, as_json=as_json)
    if wait and rollout["status"] != "SUCCEEDED":
        raise typer.Exit(1)


def _print_meant(told: dict[str, Any]) -> None:
    """Say what a rollback would do, and what speaks against it."""
    console.print(escape(told["sentence"]))
    for warning in told["warnings"]:
        console.print(escape(warning))


def _ended(client: Client, number: int) -> dict[str, Any]:
    """Return a rollout when it has ended; a hub that is restarted meanwhile is waited for.

    Raises:
        HubUnavailable: It stayed away. The rollout goes on with it.
    """
    try:
        return deque(states(client, number), maxlen=1).pop()
    except HubUnavailable as error:
        kept = f"Rollout {number} is kept and goes on with the hub: `muster rollout watch {number}`."
        error.remedy = f"{error.remedy} {kept}".lstrip()
        raise
    except KeyboardInterrupt:
        typer.echo(f"Rollout {number} goes on; nobody waits for it here any more.", err=True)
        raise typer.Exit(130) from None
