"""``muster samples`` and ``muster model capture``."""

from __future__ import annotations

import csv
import io
import re
import time
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet.protocol.errors import HubUnavailable, InvalidInput, StorageError
from fleet.protocol.names import checked_name
from fleet.protocol.samples import Reason
from hub.cli.client import client_of
from hub.cli.output import JsonFlag, console, print_table, show
from hub.durable import write_durably
from hub.sample_export import TABLE_FILE

app = typer.Typer(
    help="List, export and delete inputs that devices captured for labelling.", no_args_is_help=True
)

DAY_S = 86400.0
_MEMBER = re.compile(r"samples(-[1-9][0-9]{0,5})?\.(npz|csv)")

Model = Annotated[str | None, typer.Option(help="Only of this model.")]
Device = Annotated[str | None, typer.Option(help="Only from this device.")]
Why = Annotated[Reason | None, typer.Option(help="Only those captured for this reason.")]
OlderThan = Annotated[
    float | None, typer.Option(min=0, metavar="DAYS", help="Only those that came longer ago than this.")
]


def capture(
    context: typer.Context,
    model: Annotated[str, typer.Argument()],
    device: Annotated[list[str] | None, typer.Option(help="Which device; repeat for several.")] = None,
    where: Annotated[str | None, typer.Option(metavar="TARGET", help="Which devices, by a target.")] = None,
    uncertain_below: Annotated[
        float, typer.Option(min=0, max=1, help="Capture answers of a lower confidence.")
    ] = 0.0,
    drifted: Annotated[bool, typer.Option("--drifted", help="Capture inputs unlike the reference.")] = False,
    random_share: Annotated[
        float, typer.Option(min=0, max=1, help="Capture this share of all inputs by chance.")
    ] = 0.0,
    bytes_per_day: Annotated[int, typer.Option(min=1, help="Most bytes a day and device.")] = 1024 * 1024,
    sample_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of one sample.")] = 64 * 1024,
    days: Annotated[float, typer.Option(min=0.001, max=400, help="For how long.")] = 30.0,
    redaction: Annotated[
        str | None, typer.Option(help="Name of the redaction that samples must go through on the device.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Capture no more.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let devices capture inputs of a model for labelling; without any device, show which do."""
    client = client_of(context)
    path = f"/models/{checked_name(model, 'model name')}/capture"
    if not device and where is None:
        if off or drifted or uncertain_below or random_share:
            raise InvalidInput("No device is named.", remedy="Give --device or --where.")
        _print_captures(client.get(path), as_json=as_json)
        return
    policy = {
        "uncertain_below": uncertain_below,
        "drifted": drifted,
        "random_share": random_share,
        "bytes_per_day": bytes_per_day,
        "sample_bytes": sample_bytes,
        "lifetime_s": days * DAY_S,
        "redaction": redaction,
    }
    body = {"devices": device or [], "where": where, "policy": None if off else policy}
    show(client.post(path, body), as_json=as_json, draw=_print_ordered)


@app.command("list")
def list_(
    context: typer.Context,
    model: Model = None,
    device: Device = None,
    reason: Why = None,
    as_json: JsonFlag = False,
) -> None:
    """List captured samples, the oldest first."""
    columns = {
        "number": "sample",
        "model": "model",
        "version": "version",
        "device_id": "device",
        "received_at_s": "came",
        "reason": "because",
        "feature": "feature",
        "category": "class",
        "confidence": "confidence",
        "size_bytes": "bytes",
    }
    rows = client_of(context).pages("/samples", **_filter(model, device, reason))
    empty = "There are no such samples. `muster model capture` lets devices capture some."
    print_table(rows, columns, as_json=as_json, empty=empty)


@app.command("export")
def export(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Of which model.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write; made if it is not there.")],
    device: Device = None,
    reason: Why = None,
    after: Annotated[int, typer.Option(min=0, help="Only samples with higher numbers.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Write samples as dataset files, and a table to write their labels into."""
    client = client_of(context)
    wanted = _filter(model, device, reason)
    archive = client.download("/samples/export", after=str(after), **wanted)
    files, last, count = _unpack(archive, out)
    more = bool(client.get("/samples", after=str(last), limit=1, **wanted)["items"])
    answer = {"files": files, "samples": count, "last": last, "more": more}
    show(answer, as_json=as_json, draw=lambda shown: _print_export(shown, out))


@app.command("delete")
def delete(
    context: typer.Context,
    model: Model = None,
    device: Device = None,
    reason: Why = None,
    older_than: OlderThan = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete samples for good: those for which all that is given holds."""
    until_s = None if older_than is None else time.time() - older_than * DAY_S
    body = {**_filter(model, device, reason), "until_s": until_s}
    answer = client_of(context).post("/samples/delete", body)
    show(answer, as_json=as_json, draw=lambda shown: console.out(f"{shown['deleted']} sample(s) deleted."))


def _filter(model: str | None, device: str | None, reason: Reason | None) -> dict[str, Any]:
    return {"model": model, "device_id": device, "reason": reason.value if reason else None}


def _unpack(archive: bytes, out: Path) -> tuple[list[str], int, int]:
    """Write what an export holds into a folder; return the names, the last sample's number and how many."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            if not all(_MEMBER.fullmatch(name) for name in opened.namelist()):
                raise HubUnavailable("The server's export holds files that no export has.")
            files = {name: opened.read(name) for name in opened.namelist()}
        table = list(csv.DictReader(io.StringIO(files[TABLE_FILE].decode())))
        last = int(table[-1]["sample"])
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError) as error:
        raise HubUnavailable("The server did not answer with an export of samples.") from error
    present = [name for name in files if (out / name).exists()]
    if present:
        raise InvalidInput(f"{out / present[0]} exists.", remedy="Export into another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out} cannot be made: {error.strerror}.") from error
    for name, data in files.items():
        write_durably(out / name, data)
    return sorted(files), max(last, *(int(line["sample"]) for line in table)), len(table)


def _print_export(answer: dict[str, Any], out: Path) -> None:
    console.out(
        f"Wrote {answer['samples']} sample(s) to {out}: {', '.join(answer['files'])}.", highlight=False
    )
    if answer["more"]:
        console.out(f"There are more: --after {answer['last']}.", highlight=False)


def _print_ordered(answer: dict[str, Any]) -> None:
    changed = ", ".join(answer["changed"]) or "no device"
    console.out(f"Changed: {changed}.", highlight=False)
    for device_id, reason in answer["refused"].items():
        console.out(f"Left out: {device_id}. {reason}", highlight=False)


def _print_captures(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    columns = {
        "device_id": "device",
        "uncertain_below": "below",
        "drifted": "drifted",
        "random_share": "share",
        "bytes_per_day": "bytes a day",
        "sample_bytes": "bytes a sample",
        "redaction": "redaction",
        "waiting": "waiting",
        "dropped": "dropped",
        "by": "by",
        "at_s": "since",
    }
    empty = "No device captures inputs of this model. Give --device or --where, and what to capture."
    print_table(rows, columns, as_json=as_json, empty=empty)
