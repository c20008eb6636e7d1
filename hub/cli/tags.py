"""``muster device tag``."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.protocol.errors import InvalidInput
from fleet.protocol.names import checked_name
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, show

TAG_SETTINGS = {"ignore_unknown_options": True}
"""So that ``-old`` is a change like ``+lab``, and not an option that nobody knows."""


def tag(
    context: typer.Context,
    device_id: Annotated[str, typer.Argument()],
    changes: Annotated[list[str], typer.Argument(help="+TAG gives the device a tag, -TAG takes it away.")],
    as_json: JsonFlag = False,
) -> None:
    """Tag a device, so that targets find it: `muster device tag cam-7 +lab -old`."""
    checked_name(device_id, "device id")
    body: dict[str, list[str]] = {"add": [], "remove": []}
    for change in changes:
        if change[:1] not in {"+", "-"}:
            raise InvalidInput(
                f"{change!r:.80} is no change of tags.",
                remedy=f"Write +{change} to add it, -{change} to remove it.",
            )
        body["add" if change[0] == "+" else "remove"].append(checked_name(change[1:], "tag"))
    answer = client_of(context).post(f"/devices/{device_id}/tags", body)
    show(
        answer,
        as_json=as_json,
        draw=lambda shown: console.out(", ".join(shown["tags"]) or "no tags", highlight=False),
    )
