"""``muster rollout watch``: a rollout as it goes on, drawn on a terminal, line by line elsewhere."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleet.protocol.errors import HubUnavailable
from fleet.sentences import devices, duration
from hub.cli.client import Client, client_of
from hub.cli.output import JsonFlag, console, harmless, utc
from hub.cli.rollout_pictures import ENDED, Number, stages_table, way_back, whereabouts

POLL_S = 0.5
PATIENCE_S = 120.0
"""How long a hub may be silent while it is restarted."""
_PACE_OVER_S = 60.0
_COUNTS_EVERY_S = 5.0
_BAR_WIDTH = 40
_DECISIONS_SHOWN = 5


def watch(context: typer.Context, number: Number, as_json: JsonFlag = False) -> None:
    """Follow a rollout until it ends; exit code 0 only if it succeeded. JSON: a line for each change.

    Ctrl-C ends the watching, not the rollout.
    """
    client = client_of(context)
    try:
        rollout = _follow(client, number, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo(f"Rollout {number} goes on; nobody watches it from here any more.", err=True)
        raise typer.Exit(130) from None
    if rollout["status"] != "SUCCEEDED":
        raise typer.Exit(1)


def _follow(client: Client, number: int, *, as_json: bool) -> dict[str, Any]:
    pace = Pace()
    rollout: dict[str, Any] = {}
    lines, told = _Lines(client), -1
    is_live = console.is_terminal and not as_json
    with Live(console=console, auto_refresh=False) if is_live else nullcontext() as live:
        for rollout in states(client, number, live):
            pace.note(rollout, time.monotonic())
            if live is not None:
                latest = _decisions(client, rollout, max(0, rollout["decisions"] - _DECISIONS_SHOWN))
                live.update(picture(rollout, latest, pace), refresh=True)
            elif as_json:
                if rollout["revision"] != told:
                    told = rollout["revision"]
                    console.out(json.dumps(rollout), highlight=False)
            else:
                lines.tell(rollout)
    return rollout


def states(client: Client, number: int, live: Live | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rollout as the hub tells it until it has ended; a hub that is away is waited for."""
    heard_s = time.monotonic()
    while True:
        try:
            rollout = client.get(f"/rollouts/{number}")
            heard_s = time.monotonic()
            yield rollout
            if rollout["status"] in ENDED:
                return
        except HubUnavailable:
            if time.monotonic() - heard_s > PATIENCE_S:
                raise
            if live is not None:
                live.update(
                    Text(f"The hub does not answer; waiting for it. Rollout {number} is kept."), refresh=True
                )
        time.sleep(POLL_S)


def _decisions(client: Client, rollout: dict[str, Any], after: int) -> list[dict[str, Any]]:
    """Return the decisions after so many, a page of them at most."""
    page = client.get(f"/rollouts/{rollout['number']}/history", after=str(after), limit=1000)
    items: list[dict[str, Any]] = page["items"]
    return items


class _Lines:
    """Prints what changes, for a file: every decision, and now and then how many devices are where."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known = -1
        self._counts = ""
        self._counted_s = 0.0

    def tell(self, rollout: dict[str, Any]) -> None:
        """Print what is new."""
        if self._known < 0:
            name = f"Rollout {rollout['number']}: {rollout['model']} version {rollout['version']}"
            _line(f"{name} for {devices(rollout['devices'])}")
            self._known = 0
        if rollout["decisions"] > self._known:
            for entry in _decisions(self._client, rollout, self._known):
                _line(f"{utc(entry['at_s'])}  {entry['text']}")
                self._known += 1
        counts = whereabouts(rollout)
        is_due = time.monotonic() - self._counted_s >= _COUNTS_EVERY_S or rollout["status"] in ENDED
        if counts != self._counts and is_due:
            self._counts, self._counted_s = counts, time.monotonic()
            _line(f"  {rollout['status']}: {counts}")


def _line(text: str) -> None:
    console.out(harmless(text), highlight=False)


class Pace:
    """How fast devices have ended lately."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, rollout: dict[str, Any], now_s: float) -> None:
        """Take in how many have ended by now."""
        ended = sum(stage["succeeded"] + stage["failed"] for stage in rollout["stages"])
        self._seen.append((now_s, ended))
        while self._seen[0][0] < now_s - _PACE_OVER_S:
            self._seen.popleft()

    @property
    def per_minute(self) -> float:
        """Devices that ended in a minute, by the last one."""
        (since_s, before), (now_s, ended) = self._seen[0], self._seen[-1]
        return 60.0 * max(0, ended - before) / (now_s - since_s) if now_s > since_s else 0.0


def picture(rollout: dict[str, Any], decisions: list[dict[str, Any]], pace: Pace) -> RenderableType:
    """Return a rollout as it is drawn.

    Args:
        rollout: As the API gave it.
        decisions: The latest about it, oldest first.
        pace: How fast devices end.
    """
    parts: list[RenderableType] = [stages_table(rollout)]
    if rollout["status"] not in ENDED and rollout["stage"]:
        parts.append(_progress(rollout, pace))
    parts += [_metric(told) for told in rollout["metrics"]]
    parts += [Text(harmless(f"{utc(line['at_s'])}  {line['text']}"), style="dim") for line in decisions]
    return Group(*parts)


def _progress(rollout: dict[str, Any], pace: Pace) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    if rollout["status"] == "ROLLING_BACK":
        total = rollout["restored"] + rollout["open_restores"] + rollout["unrestored"]
        done = total - rollout["open_restores"]
        row.add_row(ProgressBar(total=max(1, total), completed=done, width=_BAR_WIDTH), way_back(rollout))
        return row
    stage = rollout["stages"][rollout["stage"] - 1]
    done = stage["devices"] - stage["open"]
    text = f"{done:,} of {stage['devices']:,} ended, {pace.per_minute:,.0f} a minute"
    if stage["waiting"]:
        text += f"; {stage['waiting']:,} wait for their order"
    if stage["bake_started_at_s"] is not None and stage["ended_at_s"] is None:
        baked_s = max(0.0, time.time() - stage["bake_started_at_s"])
        text += f"; has baked for {duration(baked_s)} of {duration(stage['minimum_bake_s'])} at least"
    row.add_row(ProgressBar(total=max(1, stage["devices"]), completed=done, width=_BAR_WIDTH), text)
    return row


def _metric(told: dict[str, Any]) -> RenderableType:
    style = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}.get(told["outcome"], "")
    line = Text()
    line.append(f"{told['outcome']:<12} ", style=style)
    line.append(harmless(told["sentence"]))
    return line
