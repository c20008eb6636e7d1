"""``muster alerts``: see what is wrong, silence it, take care of it, and check that it is told."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from fleet.alerts.alert import Severity
from fleet.protocol.names import checked_name
from hub.cli.client import client_of
from hub.cli.hub import DEFAULT_HOME, Home
from hub.cli.output import JsonFlag, ago, console, print_table, show, utc
from hub.durations import duration_s

app = typer.Typer(help="See what is wrong in the fleet, silence it, take care of it.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(help="The alert's key, as the list shows it.")]


@app.command("list")
def list_(
    context: typer.Context,
    ended: Annotated[bool, typer.Option("--all", help="Those that have ended as well.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the alerts that are open, newest first, with the command that acts on each."""
    client = client_of(context)
    rows = list(client.pages("/alerts", ended=ended))
    columns = {
        "key": "alert",
        "severity": "severity",
        "state": "state",
        "started_at_s": "since",
        "sentence": "what",
        "silence": "silence",
        "acknowledged_by": "taken by",
    }
    print_table(rows, columns, as_json=as_json, empty="No alert is open; --all lists those that ended.")
    if not as_json:
        for row in rows:
            if row["state"] != "RESOLVED":
                _out(f"{row['key']}: {row['command']}")
        for receiver in client.get("/receivers"):
            _print_trouble(receiver)


@app.command("show")
def show_alert(context: typer.Context, key: Key, as_json: JsonFlag = False) -> None:
    """Show one alert: its evidence, its devices, what acts on it, and who was told."""
    show(client_of(context).get(_path(key)), as_json=as_json, draw=_print)


@app.command()
def ack(
    context: typer.Context,
    key: Key,
    note: Annotated[str, typer.Option(help="What you do about it.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Say that you take care of an alert: nobody is reminded of it until it grows or ends."""
    answer = client_of(context).post(f"{_path(key)}/acknowledge", {"note": note})
    show(answer, as_json=as_json, draw=_print)


@app.command()
def silence(
    context: typer.Context,
    duration: Annotated[str, typer.Option("--for", help="How long: 90s, 30min, 2h or 7d.")],
    reason: Annotated[str, typer.Option(help="Why; shown with the silence.")],
    kind: Annotated[list[str] | None, typer.Option(help="Alerts of this kind; repeat for more.")] = None,
    severity: Annotated[list[Severity] | None, typer.Option(help="Repeat for both.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="About this model; repeat for more.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="With this key; repeat for more.")] = None,
    device: Annotated[str | None, typer.Option(help="That concern no device but this.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Let nobody be told of some alerts for a while; they stay visible."""
    body = {
        "kinds": kind or [],
        "severities": [one.value for one in severity or []],
        "models": model or [],
        "keys": key or [],
        "device": device,
        "for_s": duration_s(duration),
        "reason": reason,
    }
    made = client_of(context).post("/silences", body)
    show(made, as_json=as_json, draw=_print_silence)


@app.command()
def silences(
    context: typer.Context,
    ended: Annotated[bool, typer.Option("--all", help="Those that have ended as well.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the silences in force."""
    rows = list(client_of(context).pages("/silences", ended=ended))
    if not as_json:
        for row in rows:
            conditions = [*row["kinds"], *row["severities"], *row["models"], *row["keys"]]
            row["what"] = ", ".join([*conditions, *filter(None, [row["device"]])])
            row["until"] = utc(row["ends_at_s"]) + (f", by {row['ended_by']}" if row["ended_by"] else "")
    columns = {"number": "silence", "what": "what", "until": "until", "by": "by", "reason": "because"}
    print_table(rows, columns, as_json=as_json, empty="Nothing is silenced.")


@app.command()
def unsilence(
    context: typer.Context,
    number: Annotated[int, typer.Argument(min=1, help="The silence's number.")],
    as_json: JsonFlag = False,
) -> None:
    """End a silence now."""
    answer = client_of(context).post(f"/silences/{number}/end")
    show(answer, as_json=as_json, draw=lambda ended: _out(f"Silence {ended['number']} has ended."))


@app.command()
def test(
    context: typer.Context,
    receiver: Annotated[str, typer.Argument(help="A receiver of alerts.toml.")],
    as_json: JsonFlag = False,
) -> None:
    """Let the hub send a receiver a test message now; exit code 0 only if it took it."""
    path = f"/receivers/{checked_name(receiver, 'receiver')}/test"  # or it would not be one step of the path
    answer = client_of(context).post(path)
    show(answer, as_json=as_json, draw=lambda taken: _out(f"{taken['receiver']} took a test message."))


@app.command()
def check(home: Home = DEFAULT_HOME) -> None:
    """Check alerts.toml in a hub's folder, with its secrets, and say who is told of what."""
    from hub.alerts.alerting import senders
    from hub.alerts.settings import ALERTS_FILE, read_alert_settings
    from hub.settings import read_settings

    read_settings(home)
    settings = read_alert_settings(home)
    senders(settings, home)
    if not (home / ALERTS_FILE).exists():
        _out(f"There is no {home / ALERTS_FILE}: alerts are shown, and nobody is told.")
        return
    if not settings.receiver:
        _out(f"{home / ALERTS_FILE} names no receiver: alerts are shown, and nobody is told.")
    for receiver in settings.receiver:
        _out(f"{receiver.name}: {receiver.kind}")
    for route in settings.routes:
        what = [*route.kinds, *route.severities, *route.models]
        _out(f"{', '.join(what) or 'everything'} → {', '.join(route.receivers)}")


def _print(alert: dict[str, Any]) -> None:
    """Print an alert in lines that can be copied as they stand."""
    _out(f"{alert['key']}  {alert['severity']}  {alert['state']}  since {utc(alert['started_at_s'])}")
    _out(alert["sentence"])
    for line in alert["evidence"]:
        _out(f"  evidence: {line}")
    for line in alert["affected"]:
        _out(f"  affected: {line}")
    if alert["devices"]:
        more = alert["device_count"] - len(alert["devices"])
        _out(f"  devices:  {', '.join(alert['devices'])}{f' and {more} more' if more else ''}")
    if alert["acknowledged_by"]:
        note = f": {alert['note']}" if alert["note"] else ""
        _out(f"  taken by {alert['acknowledged_by']}, {ago(alert['acknowledged_at_s'])}{note}")
    if alert["silence"]:
        _out(f"  silence {alert['silence']} mutes it: muster alerts silences")
    _out(f"  act:      {alert['command']}")
    _out(f"  look:     {alert['inspect']}")
    columns = {
        "receiver": "told",
        "occasion": "that it",
        "created_at_s": "when",
        "outcome": "outcome",
        "attempts": "failed",
        "error": "because",
    }
    if alert["messages"]:
        print_table(alert["messages"], columns, as_json=False)


def _print_silence(silence: dict[str, Any]) -> None:
    _out(f"Silence {silence['number']} ends at {utc(silence['ends_at_s'])}.")


def _print_trouble(receiver: dict[str, Any]) -> None:
    if receiver["given_up"] or receiver["error"]:
        counts = f"{receiver['waiting']} messages wait, {receiver['given_up']} were given up"
        _out(f"receiver {receiver['name']}: {counts}. {receiver['error'] or ''}".rstrip())


def _path(key: str) -> str:
    return f"/alerts/{quote(key, safe=':')}"


def _out(line: str) -> None:
    console.out(line, highlight=False)
