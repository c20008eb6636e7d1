"""How commands show rollouts: a table of stages, why they are where they are, and what was decided."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from fleet.rollout.state.rollout import FINAL, Status
from hub.cli.output import console, show, utc

ENDED = frozenset(status.value for status in FINAL)
_GONE_BACK = frozenset({Status.ROLLING_BACK.value, Status.ROLLED_BACK.value})

Number = Annotated[int, typer.Argument(min=1, help="The rollout's number.")]


def print_rollout(rollout: dict[str, Any], *, as_json: bool) -> None:
    """Show a rollout; one that was just created with what was forecast of it."""
    show(rollout, as_json=as_json, draw=_print_rollout)


def _print_rollout(rollout: dict[str, Any]) -> None:
    console.print(stages_table(rollout))
    for warning in rollout["warnings"] if rollout["status"] == "CREATED" else ():
        console.print(escape(f"  {warning}"))


def print_status(rollout: dict[str, Any]) -> None:
    """Show a rollout with its decisions, numbered, and what is told of its shadow."""
    console.print(stages_table(rollout))
    if rollout["shadow"] is not None:
        console.print(_shadow_line(rollout["shadow"]))
    for number, line in enumerate(rollout["history"], start=1):
        console.print(f"  {number:>3}  {utc(line['at_s'])}  {escape(line['text'])}")


def stages_table(rollout: dict[str, Any]) -> Table:
    """Return the stages of a rollout."""
    name = f"rollout {rollout['number']}: {rollout['model']} version {rollout['version']}"
    table = Table(
        title=escape(f"{name} {rollout['status']}"),
        title_justify="left",
        caption=escape("; ".join(filter(None, _captions(rollout)))) or None,
        caption_justify="left",
    )
    for heading in ("stage", "devices", "succeeded", "failed", "canceled", "open", "verdict"):
        table.add_column(heading)
    for number, stage in enumerate(rollout["stages"], start=1):
        marker = "→ " if number == rollout["stage"] and rollout["status"] not in ENDED else "  "
        table.add_row(
            escape(f"{marker}{number} {stage['name']}".rstrip()),
            f"{stage['devices']:,}",
            f"{stage['succeeded']:,}",
            f"{stage['failed']:,}",
            f"{stage['canceled']:,}",
            f"{stage['open']:,}",
            _verdict(rollout, number, stage),
        )
    return table


def whereabouts(rollout: dict[str, Any]) -> str:
    """Return how many devices are where on the way forward, and on the way back if any are to go it."""
    forward = ", ".join(f"{number:,} {state}" for state, number in rollout["counts"].items())
    back = way_back(rollout)
    if back and rollout["status"] in _GONE_BACK:
        return back
    return f"{forward}; {back}" if back else forward


def way_back(rollout: dict[str, Any]) -> str:
    """Return how many devices are back, are still to go back, and did not; empty if nobody goes back."""
    told = {
        "taken back": rollout["restored"],
        "still to be taken back": rollout["open_restores"],
        "not taken back": rollout["unrestored"],
    }
    return ", ".join(f"{number:,} {what}" for what, number in told.items() if number)


def _verdict(rollout: dict[str, Any], number: int, stage: dict[str, Any]) -> str:
    if stage["verdict"]:
        told: str = stage["verdict"]
        return told
    waits = rollout["awaits_approval_since_s"] is not None and number == rollout["stage"] + 1
    return "waits for approval" if waits else "–"


def _shadow_line(shadow: dict[str, Any]) -> str:
    """Say how the version did in the shadow of the one that answers."""
    told = f"  shadow: {shadow['disagreed']} of {shadow['compared']} samples disagree"
    if shadow["disagreed_share"] is not None:
        told += f" ({shadow['disagreed_share']:.1%})"
    told += f" on {shadow['devices']} device(s)"
    failed = shadow["errors"] + shadow["not_finite"]
    return told + (f"; {failed} request(s) failed" if failed else "")


def _captions(rollout: dict[str, Any]) -> tuple[str | None, ...]:
    """Return why the rollout is where it is."""
    cause = rollout["cause"]["detail"] if rollout["cause"] else None
    waits = None
    if rollout["awaits_approval_since_s"] is not None:
        stage = rollout["stage"] + 1
        command = f"muster rollout approve {rollout['number']} --stage {stage}"
        waits = f"stage {stage} waits for `{command}` by a second person"
    back = way_back(rollout)
    if rollout["status"] == "PAUSED":
        choices = "Abort it." if rollout["revoked"] else "Resume, promote or abort it."
        return (f"paused: {rollout['pause_reason']} {choices}", waits, back)
    return (waits, back, cause or rollout["verdict"])
