"""What operators say of a rollout: start, pause, resume, approve, promote, abort.

On a terminal the words that cannot be taken back say first what the rollout is like, and ask; the answer then
counts only if nobody decided anything in between (``If-Match``, see `hub.api.preconditions`). Where nobody is
asked, a promotion or an approval names its stage. A command that looked and sent what it saw would name
whichever stage it was the turn of by then: of two scripts that say it at once the second would skip one.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from hub.cli.client import Client, client_of
from hub.cli.output import JsonFlag, console
from hub.cli.questions import Yes, asks, refuse
from hub.cli.rollout_explain import print_verdict
from hub.cli.rollout_pictures import Number, print_rollout

Reason = Annotated[str, typer.Option(help="Why, for the history.")]
IfMatch = Annotated[
    int | None,
    typer.Option(
        "--if-match",
        min=0,
        help="Only if so many decisions were made, as `status` and `explain` number them.",
    ),
]
Stage = Annotated[
    int | None,
    typer.Option("--stage", min=1, help="The stage that is meant; needed where nobody is asked."),
]

_END_AND_KEEP = "End it, take back devices on their way, and leave the version where it runs?"


def start(
    context: typer.Context, number: Number, if_match: IfMatch = None, as_json: JsonFlag = False
) -> None:
    """Start a rollout."""
    _say(client_of(context), number, "start", {}, if_match, as_json=as_json)


def pause(
    context: typer.Context,
    number: Number,
    reason: Reason = "",
    if_match: IfMatch = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold a rollout where it is."""
    _say(client_of(context), number, "pause", {"reason": reason}, if_match, as_json=as_json)


def resume(
    context: typer.Context, number: Number, if_match: IfMatch = None, as_json: JsonFlag = False
) -> None:
    """Let a paused rollout go on."""
    _say(client_of(context), number, "resume", {}, if_match, as_json=as_json)


def approve(
    context: typer.Context,
    number: Number,
    reason: Reason = "",
    stage: Stage = None,
    if_match: IfMatch = None,
    *,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Let a stage begin that waits for a second person; not for who created, started or promoted it."""
    client = client_of(context)
    expected = _confirmed(client, number, "Let the stage begin?", if_match, yes=yes or as_json)
    _say(client, number, "approve", {"reason": reason, "stage": stage}, expected, as_json=as_json)


def promote(
    context: typer.Context,
    number: Number,
    reason: Annotated[str, typer.Option(help="Why the gate is overridden.")],
    stage: Stage = None,
    if_match: IfMatch = None,
    *,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Go on to the next stage without the gate's word; recorded as an override."""
    client = client_of(context)
    expected = _confirmed(client, number, "End the stage without the gate?", if_match, yes=yes or as_json)
    _say(client, number, "promote", {"reason": reason, "stage": stage}, expected, as_json=as_json)


def abort(
    context: typer.Context,
    number: Number,
    reason: Reason = "",
    roll_back: Annotated[bool, typer.Option("--rollback", help="Bring the devices back as well.")] = False,
    if_match: IfMatch = None,
    *,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """End a rollout for good: devices that run the version keep it, or go back in waves."""
    client = client_of(context)
    question = "End it and bring devices back?" if roll_back else _END_AND_KEEP
    expected = _confirmed(client, number, question, if_match, yes=yes or as_json)
    body = {"reason": reason, "roll_back": roll_back}
    _say(client, number, "abort", body, expected, as_json=as_json)


def _confirmed(client: Client, number: int, question: str, if_match: int | None, *, yes: bool) -> int | None:
    """Return how many decisions the rollout is to have when the word is said; ask, if somebody is there."""
    if yes or not asks():
        return if_match
    told = client.get(f"/rollouts/{number}/explanation")
    if if_match is not None and told["decisions"] != if_match:
        return if_match  # the hub says what happened
    console.print(escape(f"Rollout {number} is {told['status']}. {told['why']}"))
    print_verdict(told)
    if not typer.confirm(question):
        refuse()
    decisions: int = told["decisions"]
    return decisions


def _say(
    client: Client, number: int, word: str, body: dict[str, Any], expected: int | None, *, as_json: bool
) -> None:
    rollout = client.post(f"/rollouts/{number}/{word}", body, decisions=expected)
    print_rollout(rollout, as_json=as_json)
