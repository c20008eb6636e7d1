"""``muster fleet health`` and ``muster fleet alarms``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleet.health import NO_VERSION
from fleet.protocol.errors import InvalidInput
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, ago, console, print_table, show

_MOST_NAMED = 10

ModelOption = Annotated[str | None, typer.Option(help="Only devices that run this model, or should.")]


def health(
    context: typer.Context,
    by: Annotated[
        list[str] | None, typer.Option(help="One of: state, version, or an attribute: site, hardware, …")
    ] = None,
    model: ModelOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most devices that are listed.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show the fleet's health: counts, groups, and devices that are not well."""
    if by and len(by) > 1:
        raise InvalidInput("Health is grouped by one thing at a time.", remedy="Give --by once.")
    answer = client_of(context).get("/fleet/health", by=by[0] if by else None, model=model, limit=limit)
    show(answer, as_json=as_json, draw=_print_health)


def alarms(context: typer.Context, model: ModelOption = None, as_json: JsonFlag = False) -> None:
    """Show the drift alarms of the fleet: devices, feature, evidence, and what the devices share."""
    rows = list(client_of(context).pages("/drift/alarms", model=model))
    show(rows, as_json=as_json, draw=_print_alarms)


def _print_health(answer: dict[str, Any]) -> None:
    console.print(f"{answer['devices']} devices, {answer['online']} online")
    if answer["devices"]:
        console.print(_counts(answer["by_health"]))
    if answer["waiting"]:
        console.print(f"{answer['waiting']} devices changed and are still to be judged")
    for model in answer["models"]:
        _print_model(model)
    if answer["groups"]:
        _print_groups(answer["groups"])
    if answer["unwell"]:
        columns = {"device_id": "device", "health": "health", "reasons": "because"}
        print_table(answer["unwell"], columns, as_json=False)
    if answer["next"]:
        console.print(f"These are the first {len(answer['unwell'])}; --limit shows more, --json pages.")
    if answer["refused_messages"]:
        console.print(f"{answer['refused_messages']} messages could not be taken in")


def _print_model(model: dict[str, Any]) -> None:
    versions = ", ".join(f"{number} on {_named(version)}" for version, number in model["by_version"].items())
    console.print(f"{model['model']}: {versions}; {model['as_desired']} of {model['devices']} as desired")
    if model["drifting_devices"]:
        console.print(f"  drift alarm: {_first(model['drifting'], model['drifting_devices'])}")


def _print_groups(groups: dict[str, Any]) -> None:
    rows = [{**group, "value": group["value"] or "(none)"} for group in groups["items"]]
    if groups["others"]:
        others = groups["values"] - len(groups["items"])
        rows.append({**groups["others"], "value": f"({others} others)"})
    for row in rows:
        row["counts"] = _counts(row["by_health"])
    columns = {"value": groups["by"], "devices": "devices", "counts": "health"}
    print_table(rows, columns, as_json=False)


def _print_alarms(rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print("There is no drift alarm.")
    for alarm in rows:
        versions = ", ".join(map(str, alarm["versions"]))
        console.print(f"[bold]{alarm['model']} {versions}: {alarm['feature']}[/bold]")
        named = _first(alarm["devices"], alarm["device_count"])
        console.print(f"  {alarm['device_count']} of {alarm['of_devices']} devices: {named}")
        if alarm["since_s"] is not None:
            console.print(f"  since {ago(alarm['since_s'])}, looked at last {ago(alarm['until_s'])}")
        console.print(f"  most of all {alarm['strongest']}, {alarm['evidence']}")
        shared = [trait["sentence"] for trait in alarm["shared"]]
        for sentence in shared or ["nothing stands out among the affected devices"]:
            console.print(f"  {sentence}")


def _counts(by_health: dict[str, int]) -> str:
    return ", ".join(f"{number} {health}" for health, number in by_health.items() if number)


def _first(names: list[str], number: int) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if number <= _MOST_NAMED else f"{shown} and {number - _MOST_NAMED} more"


def _named(version: str) -> str:
    return "no version" if version == NO_VERSION else f"version {version}"
