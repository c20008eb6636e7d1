"""Routes: alerts, silences, and how receivers fare. Receivers are set up in the hub's folder alone."""

from __future__ import annotations

import time

from fastapi import APIRouter

from fleet.alerts.alert import KINDS
from fleet.alerts.matching import Match
from fleet.protocol.errors import InvalidInput, NotFound
from hub.api.alert_schemas import (
    AcknowledgeIn,
    AlertDetailOut,
    AlertOut,
    ReceiverOut,
    SilenceIn,
    SilenceOut,
    TestOut,
)
from hub.api.auth import Operator, Viewer
from hub.api.paging import Limit, Number, number_in
from hub.api.schemas import Page
from hub.api.services import Hub, HubServices
from hub.store.alert_rows import ReceiverTally

router = APIRouter(tags=["alerts"])


@router.get("/alerts")
def list_alerts(
    hub: Hub, _: Viewer, ended: bool = False, after: str | None = None, limit: Limit = 100
) -> Page[AlertOut]:
    """List the alerts that are open, newest first; with ``ended``, those that have ended as well."""
    rows = hub.store.alerts(open_only=not ended, before=number_in(after), limit=limit)
    following = str(rows[-1][0]) if len(rows) == limit else None
    return Page(items=[AlertOut.of(alert) for _, alert in rows], next=following)


@router.get("/alerts/{key}")
def show_alert(key: str, hub: Hub, _: Viewer) -> AlertDetailOut:
    """Show the newest episode of an alert, and what receivers were told of it."""
    return _detail(hub, key)


@router.post("/alerts/{key}/acknowledge")
def acknowledge(key: str, body: AcknowledgeIn, hub: Hub, caller: Operator) -> AlertDetailOut:
    """Say that you take care of it: nobody is reminded of it any more, only told when it grows or ends."""
    hub.alerting.watch.acknowledge(key, by=caller.name, note=body.note)
    return _detail(hub, key)


@router.get("/silences")
def list_silences(hub: Hub, _: Viewer, ended: bool = False) -> Page[SilenceOut]:
    """List the silences in force, newest first; with ``ended``, those of the last 30 days as well."""
    rows = hub.store.silences(after_s=0.0 if ended else time.time())
    return Page(items=[SilenceOut.of(row) for row in rows])


@router.post("/silences", status_code=201)
def silence(body: SilenceIn, hub: Hub, caller: Operator) -> SilenceOut:
    """Let nobody be told of some alerts for a while; they stay visible."""
    match = Match(tuple(body.kinds), tuple(body.severities), tuple(body.models), tuple(body.keys))
    _check_exists(hub, match, body.device)
    made = hub.alerting.watch.silence(
        match, device=body.device, for_s=body.for_s, by=caller.name, reason=body.reason
    )
    return SilenceOut.of(made)


@router.post("/silences/{number}/end")
def end_silence(number: Number, hub: Hub, caller: Operator) -> SilenceOut:
    """End a silence now."""
    return SilenceOut.of(hub.store.end_silence(number, by=caller.name, now_s=time.time()))


@router.get("/receivers")
def list_receivers(hub: Hub, _: Viewer) -> list[ReceiverOut]:
    """List who is told of alerts, and whether they take what they are sent."""
    tallies = {tally.receiver: tally for tally in hub.store.receiver_tallies()}
    return [
        _receiver(kind, tallies.get(name) or ReceiverTally(name, 0, 0, None, ""))
        for name, kind in hub.alerting.delivery.kinds.items()
    ]


@router.post("/receivers/{name}/test")
async def test_receiver(name: str, hub: Hub, _: Operator) -> TestOut:
    """Send a receiver a test message now; an error says why it did not take it."""
    await hub.alerting.delivery.test(name)
    return TestOut(receiver=name)


def _receiver(kind: str, tally: ReceiverTally) -> ReceiverOut:
    return ReceiverOut(
        name=tally.receiver,
        kind=kind,
        waiting=tally.waiting,
        given_up=tally.given_up,
        last_sent_at_s=tally.last_sent_at_s,
        error=tally.error or None,
    )


def _detail(hub: HubServices, key: str) -> AlertDetailOut:
    alert = hub.store.alert(key)
    return AlertDetailOut.with_messages(alert, hub.store.messages_about(alert))


def _check_exists(hub: HubServices, match: Match, device: str | None) -> None:
    """Refuse a silence of what there is not: it would mute nothing, and nobody would notice."""
    if match == Match() and device is None:
        raise InvalidInput("A silence needs a kind, severity, model, key or device.")
    for kind in match.kinds:
        if kind not in KINDS:
            raise InvalidInput(f"{kind!r:.80} is no kind of alert.", remedy=f"Use {', '.join(KINDS)}.")
    for model in match.models:
        if not hub.store.versions(model, limit=1):
            raise NotFound(f"There is no model {model}.")
    for key in match.keys:
        hub.store.alert(key)
    if device is not None:
        hub.store.device(device)
