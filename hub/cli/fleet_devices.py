"""``muster fleet devices``."""

from __future__ import annotations

from typing import Any

import typer

from hub.cli.answers import Form, FormOption, OutOption, WhereOption, form_of, give, give_value
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table


def devices(
    context: typer.Context,
    where: WhereOption = None,
    form: FormOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find devices: `muster fleet devices --where 'site == "lyon" and not tag("lab")'`."""
    client, wanted = client_of(context), form_of(form, out, as_json=as_json)
    if wanted in {Form.TABLE, Form.JSON}:
        found = list(client.pages("/devices", where=where, limit=1000))
        give_value(found, wanted, out, _print)
    else:
        give(client, "/devices", {"where": where}, wanted, out, _print)


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["runs"] = ", ".join(f"{m['model']} {m['version']}" for m in row["models"]) or None
        row["tags"] = ", ".join(row["tags"]) or None
    columns = {
        "device_id": "device",
        "health": "health",
        "reasons": "because",
        "runs": "runs",
        "tags": "tags",
        "attributes": "attributes",
        "hardware": "hardware",
        "last_seen_at_s": "seen",
    }
    print_table(
        rows, columns, as_json=False, empty="No device is meant; `muster device list` shows those there are."
    )
    console.print(f"{len(rows)} device{'s' * (len(rows) != 1)}")
