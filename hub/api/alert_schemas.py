"""Shapes of the routes about alerts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fleet.alerts.alert import Alert, Severity
from fleet.alerts.matching import Silence
from fleet.protocol.names import NAME_PATTERN
from hub.api.reasons import NeededReason, Reason
from hub.api.schemas import Schema
from hub.store.alert_rows import AlertMessage

LONGEST_SILENCE_S = 90 * 86400.0
Names = Annotated[list[Annotated[str, Field(pattern=NAME_PATTERN)]], Field(max_length=100)]
Texts = Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=100)]


class AlertOut(Schema):
    """An alert: ``command`` acts on it, ``inspect`` shows more."""

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
    path: str
    started_at_s: float
    fired_at_s: float | None
    ended_at_s: float | None
    acknowledged_by: str | None
    acknowledged_at_s: float | None
    note: str | None
    silence: int | None

    @classmethod
    def of(cls, alert: Alert) -> AlertOut:
        """Return an alert as the API shows it."""
        return cls(**_fields(alert))


class MessageOut(Schema):
    """A message to a receiver, and what became of it: ``waiting``, ``sent`` or ``given_up``."""

    receiver: str
    occasion: str
    outcome: str
    created_at_s: float
    due_at_s: float
    ended_at_s: float | None
    attempts: int
    error: str | None

    @classmethod
    def of(cls, message: AlertMessage) -> MessageOut:
        """Return a message as the API shows it."""
        return cls(
            receiver=message.receiver,
            occasion=message.occasion.value,
            outcome=message.outcome.value,
            created_at_s=message.created_at_s,
            due_at_s=message.due_at_s,
            ended_at_s=message.ended_at_s,
            attempts=message.attempts,
            error=message.error or None,
        )


class AlertDetailOut(AlertOut):
    """An alert, with what receivers were told of this episode."""

    messages: list[MessageOut]

    @classmethod
    def with_messages(cls, alert: Alert, messages: list[AlertMessage]) -> AlertDetailOut:
        """Return an alert and its messages."""
        return cls(**_fields(alert), messages=[MessageOut.of(message) for message in messages])


class AcknowledgeIn(Schema):
    """That the caller takes care of it."""

    note: Reason = ""


class SilenceIn(Schema):
    """Which alerts are not told, and how long; at least one condition."""

    kinds: Texts = Field(default_factory=list)
    severities: list[Severity] = Field(default_factory=list, max_length=10)
    models: Names = Field(default_factory=list)
    keys: Texts = Field(default_factory=list)
    device: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    for_s: Annotated[float, Field(ge=1.0, le=LONGEST_SILENCE_S)]
    reason: NeededReason


class SilenceOut(Schema):
    """A silence; ``ended_by`` says who ended it early."""

    number: int
    kinds: list[str]
    severities: list[str]
    models: list[str]
    keys: list[str]
    device: str | None
    created_at_s: float
    ends_at_s: float
    by: str
    reason: str
    ended_by: str | None

    @classmethod
    def of(cls, silence: Silence) -> SilenceOut:
        """Return a silence as the API shows it."""
        match = silence.match
        return cls(
            number=silence.number,
            kinds=list(match.kinds),
            severities=[severity.value for severity in match.severities],
            models=list(match.models),
            keys=list(match.keys),
            device=silence.device,
            created_at_s=silence.created_at_s,
            ends_at_s=silence.ends_at_s,
            by=silence.by,
            reason=silence.reason,
            ended_by=silence.ended_by,
        )


class ReceiverOut(Schema):
    """A receiver, and how its messages fared in the last 30 days; its address is in ``alerts.toml`` alone."""

    name: str
    kind: str
    waiting: int
    given_up: int
    last_sent_at_s: float | None
    error: str | None


class TestOut(Schema):
    """That a receiver took a test message."""

    receiver: str


def _fields(alert: Alert) -> dict[str, Any]:
    matter, acknowledged = alert.matter, alert.acknowledged
    return {
        "key": matter.key,
        "kind": matter.kind,
        "severity": matter.severity.value,
        "state": alert.state.value,
        "title": matter.title,
        "sentence": matter.sentence,
        "evidence": list(matter.evidence),
        "affected": list(matter.affected),
        "model": matter.model,
        "version": matter.version,
        "devices": list(matter.devices),
        "device_count": matter.device_count,
        "command": matter.command,
        "inspect": matter.inspect,
        "path": matter.path,
        "started_at_s": alert.started_at_s,
        "fired_at_s": alert.fired_at_s,
        "ended_at_s": alert.ended_at_s,
        "acknowledged_by": acknowledged.by if acknowledged else None,
        "acknowledged_at_s": acknowledged.at_s if acknowledged else None,
        "note": acknowledged.note or None if acknowledged else None,
        "silence": alert.silence,
    }
