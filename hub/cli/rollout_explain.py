"""``muster rollout explain`` and ``muster rollout devices``: why a rollout is where it is, and who waits."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.state.rollout import Status
from fleet.sentences import devices
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table, show, utc
from hub.cli.rollout_pictures import Number

States = Annotated[
    list[DeploymentState] | None, typer.Option("--state", help="Only these on the way forward; repeat.")
]
Stage = Annotated[int | None, typer.Option("--stage", min=1, help="Only devices of this stage.")]


def explain(context: typer.Context, number: Number, as_json: JsonFlag = False) -> None:
    """Say why a rollout is where it is, which devices hold it up, and what would make it go on."""
    told = client_of(context).get(f"/rollouts/{number}/explanation")
    show(told, as_json=as_json, draw=print_explanation)


def print_explanation(told: dict[str, Any]) -> None:
    """Show an explanation of the API to people."""
    console.print(escape(f"Rollout {told['number']} is {told['status']} since {utc(told['since_s'])}."))
    console.print(f"Decisions so far: {told['decisions']:,}.")
    console.print(escape(told["why"]))
    print_verdict(told)
    _print_list("It goes on when", told["goes_on"])
    _print_list("Warned of when it was created", told["warnings"])
    _print_groups("Holding it up", told["held_up_by"])
    if told["looked_at"] < told["under_way"]:
        number = devices(told["under_way"])
        console.print(f"  Of {number} under way the first {told['looked_at']:,} were looked at one by one.")
    _print_groups("Not following", told["not_following"])
    _print_list("Overridden", [f"{utc(entry['at_s'])}  {entry['text']}" for entry in told["overrides"]])
    _print_list("You can", [f"{choice['command']}   {choice['effect']}" for choice in told["choices"]])


def print_verdict(told: dict[str, Any]) -> None:
    """Show what the gate says of which stage, or said last, if it says anything."""
    if told["verdict"]:
        says = "said" if Status(told["status"]).is_final else "says"
        console.print(escape(f"The gate {says} of stage {told['verdict_stage']}: {told['verdict']}."))


def list_devices(
    context: typer.Context,
    number: Number,
    state: States = None,
    stage: Stage = None,
    as_json: JsonFlag = False,
) -> None:
    """List the devices of a rollout with their parts, in the order in which it reaches them."""
    columns = {
        "device_id": "device",
        "stage": "stage",
        "state": "state",
        "since_at_s": "since",
        "tries": "retries",
        "previous_version": "ran before",
        "restore_state": "way back",
        "cause": "cause",
    }
    rows = client_of(context).pages(
        f"/rollouts/{number}/devices",
        state=[one.value for one in state] if state else None,
        stage=stage,
        limit=1000,
    )
    if as_json:
        print_table(rows, columns, as_json=True)
        return
    shown = ({**row, "cause": row["cause"]["detail"] if row["cause"] else None} for row in rows)
    print_table(shown, columns, as_json=False, empty=f"Rollout {number} has no such device.")


def _print_groups(title: str, groups: list[dict[str, Any]]) -> None:
    if groups:
        console.print(f"{title}:")
    for group in groups:
        code = f" ({group['code']})" if group["code"] else ""
        console.print(escape(f"  {devices(group['devices'])} {group['said']}{code}"))
        for one in group["examples"]:
            console.print(escape(f"    {one['device_id']}  {one['detail']}".rstrip()))
        if group["examples"] and (more := group["devices"] - len(group["examples"])) > 0:
            console.print(f"    and {more:,} more")


def _print_list(title: str, lines: list[str]) -> None:
    if lines:
        console.print(f"{title}:")
    for line in lines:
        console.print(escape(f"  {line}"))
