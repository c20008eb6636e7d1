"""Posts to a Prometheus Alertmanager: ``POST /api/v2/alerts``, an array of postableAlert in its OpenAPI.

::

    labels       alertname, severity, kind, alert (our key), and model where there is one
    annotations  summary, description, evidence, affected, devices, command, inspect
    startsAt     when it began to fire
    endsAt       when it ended; while it fires, a time by which it will have been told again

Labels tell alerts apart there, so they hold what does not change while an alert lasts, and never a device.
Only the severity can change: then a graver alert stands beside the milder one until that is forgotten.
An Alertmanager forgets what it does not hear of until ``endsAt``, so it is told again and again, as
Prometheus does; if the hub is down for longer, the alert ends there and comes back with the hub.

Source: Alertmanager, ``api/v2/openapi.yaml``; Prometheus, ``rules/alerting.go`` (``ValidUntil``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fleet.alerts.alert import Alert, State
from hub.alerts.messages import sentence_of, utc
from hub.alerts.posting import Poster
from hub.alerts.receivers import Alertmanager
from hub.store.alert_rows import AlertMessage

LEAST_VALIDITY_S = 300.0
MISSED_RESENDS = 4
"""So often telling may fail before an alert ends there."""


def postable_alert(alert: Alert, *, valid_until_s: float, hub_url: str) -> dict[str, Any]:
    """Return an alert in Alertmanager's form.

    Args:
        alert: It.
        valid_until_s: When it ends there, unless it is told again.
        hub_url: Before the link; empty for no link.
    """
    matter = alert.matter
    labels = {
        "alertname": "Muster" + "".join(word.capitalize() for word in matter.kind.split("_")),
        "severity": matter.severity.value,
        "kind": matter.kind,
        "alert": matter.key,
        "model": matter.model,
    }
    annotations = {
        "summary": matter.title,
        "description": sentence_of(alert),
        "evidence": "\n".join(matter.evidence),
        "affected": "\n".join(matter.affected),
        "devices": ", ".join(matter.devices),
        "command": matter.command,
        "inspect": matter.inspect,
    }
    ended = alert.state is State.RESOLVED and alert.ended_at_s is not None
    posted = {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": utc(alert.fired_at_s or alert.started_at_s),
        "endsAt": utc(alert.ended_at_s if ended and alert.ended_at_s is not None else valid_until_s),
    }
    return {**posted, "generatorURL": hub_url.rstrip("/") + matter.path} if hub_url else posted


class AlertmanagerSender:
    """Sends to one Alertmanager.

    Args:
        receiver: Its settings.
        folder: At which relative paths of secrets begin.
        hub_url: Before links.

    Raises:
        InvalidConfiguration: A setting or the token cannot be used.
    """

    most_at_once = 100
    gather_s = 0.0

    def __init__(self, receiver: Alertmanager, folder: Path, hub_url: str) -> None:
        self._token = receiver.token(folder)
        self._hub_url = hub_url
        self._validity_s = max(LEAST_VALIDITY_S, MISSED_RESENDS * receiver.resend_interval_s)
        url = receiver.url.rstrip("/") + "/api/v2/alerts"
        self._poster = Poster(url, timeout_s=receiver.timeout_s, ca_file=receiver.ca_path(folder))

    async def send(self, messages: Sequence[AlertMessage], now_s: float) -> None:
        """Send messages; raises `Unavailable`."""
        alerts = [
            postable_alert(message.alert, valid_until_s=now_s + self._validity_s, hub_url=self._hub_url)
            for message in messages
        ]
        headers = {"Authorization": f"Bearer {self._token.reveal()}"} if self._token else {}
        await self._poster.post(msgspec.json.encode(alerts), headers)

    async def close(self) -> None:
        """Close its connections."""
        await self._poster.close()
