"""``muster device``: what operators wish of one device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet.protocol.errors import HubUnavailable, InvalidInput, NotFound, StorageError
from fleet.protocol.names import checked_name
from fleet.protocol.wishes import LogLevel
from hub.cli.client import Client, client_of
from hub.cli.output import JsonFlag, console, show, utc

POLL_S = 0.3
OWN = "default"

DeviceId = Annotated[str, typer.Argument()]


def log_level(
    context: typer.Context,
    device_id: DeviceId,
    level: Annotated[str, typer.Argument(help=f"{', '.join(LogLevel)}, or {OWN}.")],
    as_json: JsonFlag = False,
) -> None:
    """Let a device log from a level on; `default` for its own setting."""
    if level not in {OWN, *LogLevel}:
        raise InvalidInput(
            f"{level!r:.40} is not a log level.", remedy=f"Use {', '.join(LogLevel)} or {OWN}."
        )
    body = {"level": None if level == OWN else level}
    wish(context, device_id, "log-level", body, as_json=as_json)


def hold(
    context: typer.Context,
    device_id: DeviceId,
    reason: Annotated[str, typer.Option(help="Why; shown with the device.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Let a device swap in no version until it is released."""
    wish(context, device_id, "hold", {"reason": reason}, as_json=as_json)


def release(context: typer.Context, device_id: DeviceId, as_json: JsonFlag = False) -> None:
    """Let a device swap versions in again."""
    wish(context, device_id, "release", {}, as_json=as_json)


def lift_quarantine(context: typer.Context, device_id: DeviceId) -> None:
    """Take in what a device sends again, before its quarantine ends."""
    client_of(context).post(f"{_path(device_id)}/lift-quarantine")
    console.out(f"What {device_id} sends is taken in again.", highlight=False)


def diagnose(
    context: typer.Context,
    device_id: DeviceId,
    out: Annotated[Path | None, typer.Option(help="Where to write the bundle; waits for it.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the bundle and write it here.")] = False,
    request: Annotated[
        str | None, typer.Option(help="Fetch the bundle of this earlier request in place of a new one.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait, in seconds.")] = 300.0,
    as_json: JsonFlag = False,
) -> None:
    """Ask a device for a diagnostic bundle; it answers when it is connected."""
    client, path = client_of(context), _path(device_id)
    request_id = request or client.post(f"{path}/diagnostics")["request_id"]
    file: Path | None = None
    if wait or out is not None or request is not None:
        with console.status(f"waiting for {device_id}"):
            _wait(client, device_id, request_id, timeout_s)
        file = out or Path(f"{device_id}-{request_id}.jsonl.gz")
        _write(file, client.download(f"{path}/diagnostics/{checked_name(request_id, 'request id')}"))
    answer = {"request_id": request_id, "file": str(file) if file else None}
    show(answer, as_json=as_json, draw=lambda shown: console.out(_told(shown), highlight=False))


def _told(answer: dict[str, Any]) -> str:
    if answer["file"]:
        return f"The bundle of {answer['request_id']} is in {answer['file']}."
    return f"Asked, request {answer['request_id']}; fetch it with --request {answer['request_id']}."


def _wait(client: Client, device_id: str, request_id: str, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        device = client.get(_path(device_id))
        if any(sent["request_id"] == request_id for sent in device["diagnostics"]):
            return
        if device["wishes"]["diagnostics"] != request_id:
            raise NotFound(
                f"No bundle of request {request_id} came from {device_id}, and it is not asked for it now.",
                remedy=f"`muster device show {device_id}` lists those that came.",
            )
        if time.monotonic() >= deadline_s:
            raise HubUnavailable(
                f"No bundle of request {request_id} came from {device_id} within {timeout_s:g} s.",
                remedy=f"It comes when the device is connected: `muster device diagnose {device_id} --request"
                f" {request_id}`.",
            )
        time.sleep(POLL_S)


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}.") from error


def wish(context: typer.Context, device_id: str, what: str, body: dict[str, Any], *, as_json: bool) -> None:
    """Send a wish, and print what is wished of the device then."""
    wishes = client_of(context).post(f"{_path(device_id)}/{what}", body)
    show(wishes, as_json=as_json, draw=lambda shown: print_wishes({"wishes": shown}))


def print_wishes(device: dict[str, Any]) -> None:
    """Print what is wished of a device, a line for each wish."""
    wishes = device["wishes"]
    console.out(f"log level: {wishes['log_level'] or 'as the device is set'}", highlight=False)
    held = wishes["held"]
    since = utc(held["at_s"]) if held else ""
    reason = f": {held['reason']}" if held and held["reason"] else ""
    told = f"held by {held['by']} since {since}{reason}" if held else "not held by the hub"
    console.out(f"updates:   {told}", highlight=False)
    epsilon = wishes["count_noise_epsilon"]
    noise = "as the device is set" if epsilon is None else f"ε = {epsilon:g} at most"
    console.out(f"noise:     {noise}", highlight=False)


def _path(device_id: str) -> str:
    return f"/devices/{checked_name(device_id, 'device id')}"  # or it would not be one step of the path
