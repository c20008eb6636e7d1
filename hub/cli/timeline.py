"""``muster device timeline``, and the timeline that ``muster device show`` ends with."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleet.protocol.names import checked_name
from hub.cli.answers import (
    Form,
    FormOption,
    FromOption,
    OutOption,
    ToOption,
    form_of,
    give,
    give_value,
)
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, print_table, utc


def timeline(
    context: typer.Context,
    device_id: Annotated[str, typer.Argument()],
    kind: Annotated[
        list[str] | None,
        typer.Option(help="deployment, incident, window, alarm, order or action; repeat. All if left out."),
    ] = None,
    resolution: Annotated[
        str | None, typer.Option(help="How windows are added up: hour or day. Fitting if left out.")
    ] = None,
    start: FromOption = None,
    to: ToOption = None,
    form: FormOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show everything that happened to a device, newest first; of the last 30 days if nothing is said."""
    client, wanted = client_of(context), form_of(form, out, as_json=as_json)
    path = f"/devices/{checked_name(device_id, 'device id')}/timeline"
    asked = {"kind": kind, "resolution": resolution, "from": start, "to": to}
    if wanted in {Form.TABLE, Form.JSON}:
        give_value(list(client.pages(path, limit=1000, **asked)), wanted, out, print_timeline)
    else:
        give(client, path, asked, wanted, out, print_timeline)


def print_timeline(entries: list[dict[str, Any]]) -> None:
    """Print entries of a timeline."""
    for entry in entries:
        entry["text"] = f"{entry['text']} ({entry['by']})" if entry["by"] else entry["text"]
        entry["time"] = utc(entry["at_s"])
    columns = {"at_s": "when", "time": "time", "kind": "what", "text": "told"}
    empty = "Nothing happened in this time; --from -30d looks further back."
    print_table(entries, columns, as_json=False, title="timeline", empty=empty)
