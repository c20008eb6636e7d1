"""Alerts as JSON, for the API and for webhooks, and as plain text, for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from fleet.alerts.alert import Alert, Severity, State
from fleet.alerts.telling import Occasion
from hub.store.alert_rows import AlertMessage


class AlertBody(msgspec.Struct, frozen=True):
    """An alert as programs see it; times are Unix seconds.

    Attributes:
        key: Which alert; the same in every episode.
        kind: What kind.
        severity: ``warning`` or ``critical``.
        state: ``PENDING``, ``FIRING`` or ``RESOLVED``.
        title: A few words.
        sentence: What holds; of one that ended, that it is over and what it said.
        evidence: Why that is believed.
        affected: What the devices share.
        model: About which model; null for none.
        version: About which version; null for several, or none.
        devices: The first of the devices.
        device_count: How many there are.
        command: The shell command that acts on it.
        inspect: The shell command that shows more.
        link: Where the API tells more.
        started_at_s: When it was first found.
        fired_at_s: When it began to fire; null before.
        ended_at_s: When it ended; null before.
        acknowledged_by: Who takes care of it; null for nobody.
        silence: Number of the silence that mutes it; null for none.
    """

    key: str
    kind: str
    severity: str
    state: str
    title: str
    sentence: str
    evidence: list[str]
    affected: list[str]
    model: str | None
    version: int | None
    devices: list[str]
    device_count: int
    command: str
    inspect: str
    link: str
    started_at_s: float
    fired_at_s: float | None
    ended_at_s: float | None
    acknowledged_by: str | None
    silence: int | None


class WebhookBody(msgspec.Struct, frozen=True):
    """What a webhook is sent.

    Attributes:
        id: Names the message; the same whenever it is sent again.
        occasion: ``raised``, ``grew``, ``repeated``, ``resolved`` or ``test``.
        alert: The alert.
        version: Of this form.
    """

    id: str
    occasion: str
    alert: AlertBody
    version: int = 1


def alert_body(alert: Alert, hub_url: str) -> AlertBody:
    """Return an alert as programs see it.

    Args:
        alert: It.
        hub_url: Before links; empty if it is not known.
    """
    matter = alert.matter
    return AlertBody(
        key=matter.key,
        kind=matter.kind,
        severity=matter.severity.value,
        state=alert.state.value,
        title=matter.title,
        sentence=sentence_of(alert),
        evidence=list(matter.evidence),
        affected=list(matter.affected),
        model=matter.model,
        version=matter.version,
        devices=list(matter.devices),
        device_count=matter.device_count,
        command=matter.command,
        inspect=matter.inspect,
        link=hub_url.rstrip("/") + matter.path,
        started_at_s=alert.started_at_s,
        fired_at_s=alert.fired_at_s,
        ended_at_s=alert.ended_at_s,
        acknowledged_by=alert.acknowledged.by if alert.acknowledged else None,
        silence=alert.silence,
    )


def sentence_of(alert: Alert) -> str:
    """Return what holds, in one line: what was wrong does not hold any more once the alert has ended."""
    matter = alert.matter
    if alert.state is not State.RESOLVED:
        return matter.sentence
    return f"Resolved: {matter.title}. It was: {matter.sentence}"


def webhook_body(message: AlertMessage, hub_url: str) -> bytes:
    """Return what a webhook is sent, as JSON."""
    body = WebhookBody(message.key, message.occasion.value, alert_body(message.alert, hub_url))
    return msgspec.json.encode(body)


def subject(messages: Sequence[AlertMessage]) -> str:
    """Return what messages are about, in one line."""
    first = messages[0]
    head = "resolved" if first.alert.state is State.RESOLVED else first.alert.matter.severity.value.upper()
    if len(messages) == 1:
        return f"[muster] {head}: {first.alert.matter.title}"
    critical = sum(
        message.alert.state is not State.RESOLVED and message.alert.matter.severity is Severity.CRITICAL
        for message in messages
    )
    return f"[muster] {len(messages)} alerts, {critical} critical: {first.alert.matter.title}, …"


def text(messages: Sequence[AlertMessage], hub_url: str) -> str:
    """Return messages as plain text."""
    return "\n\n".join(_paragraph(message, hub_url) for message in messages) + "\n"


def utc(unix_s: float) -> str:
    """Return a time as RFC 3339 has it."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()


def _paragraph(message: AlertMessage, hub_url: str) -> str:
    alert, matter = message.alert, message.alert.matter
    head = f"{matter.severity.value.upper()}, {message.occasion.value}"
    if message.occasion is Occasion.RESOLVED and alert.ended_at_s is not None:
        head = f"RESOLVED at {utc(alert.ended_at_s)}"
    lines = [f"{head}: {matter.title}", sentence_of(alert), "", f"since:    {utc(alert.started_at_s)}"]
    lines += [f"evidence: {line}" for line in matter.evidence]
    lines += [f"affected: {line}" for line in matter.affected]
    if matter.devices:
        more = matter.device_count - len(matter.devices)
        lines.append(f"devices:  {', '.join(matter.devices)}{f' and {more} more' if more else ''}")
    if alert.state is not State.RESOLVED:
        lines += [f"act:      {matter.command}", f"look:     {matter.inspect}"]
    if hub_url:
        lines.append(f"link:     {hub_url.rstrip('/')}{matter.path}")
    lines.append(f"key:      {matter.key}")
    return "\n".join(lines)
