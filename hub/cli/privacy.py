"""``muster device count-noise`` and ``muster fleet noised``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleet.protocol.errors import InvalidInput
from hub.cli.answers import FromOption, ModelOption, ToOption
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table, show
from hub.cli.remote import OWN, DeviceId, wish


def count_noise(
    context: typer.Context,
    device_id: DeviceId,
    epsilon: Annotated[str, typer.Argument(help=f"How private, 0.001 to 100: less is more; or {OWN}.")],
    as_json: JsonFlag = False,
) -> None:
    """Let a device put noise on its counts; `default` for as its owner set it."""
    wish(context, device_id, "count-noise", {"epsilon": _epsilon(epsilon)}, as_json=as_json)


def noised(
    context: typer.Context,
    model: ModelOption,
    start: FromOption = None,
    to: ToOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what devices with noise on their counts told of a model: about, never exactly."""
    answer = client_of(context).get("/fleet/noised", **{"model": model, "from": start, "to": to})
    show(answer, as_json=as_json, draw=_print_noised)


def _epsilon(text: str) -> float | None:
    if text == OWN:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInput(
            f"{text!r:.40} is no number.", remedy=f"Use 0.001 to 100, such as 1, or {OWN}."
        ) from error


def _print_noised(answer: dict[str, Any]) -> None:
    if not answer["items"]:
        console.print("No device with noise on its counts told anything of this model in these days.")
        return
    rows = [
        {name: _about(item, name) for name in ("predictions", "errors", "labelled", "correct")}
        | {"version": item["version"], "windows": item["windows"], "epsilon": f"{item['epsilon']:g}"}
        for item in answer["items"]
    ]
    names = ("version", "windows", "epsilon", "predictions", "errors", "labelled", "correct")
    print_table(rows, {name: name for name in names}, as_json=False)
    for item in answer["items"]:
        for feature in item["features"]:
            console.print(f"Version {item['version']}: {feature['sentence']}.", markup=False, highlight=False)


def _about(item: dict[str, Any], name: str) -> str:
    return f"{item[name]:,} ± {2 * item['deviation']:,.0f}"
