"""What is posted to an Alertmanager: the shape that its OpenAPI asks for, and a real one that takes it."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
import pytest

from fleet.alerts.alert import Alert, State
from fleet.alerts.telling import Occasion
from fleet.protocol.errors import Unavailable
from hub.alerts.alertmanager import LEAST_VALIDITY_S, AlertmanagerSender
from hub.alerts.receivers import Alertmanager
from hub.store.alert_rows import AlertMessage
from tests.support.alertmanager import running_alertmanager
from tests.support.alerts import firing
from tests.support.receivers import HttpReceiver

Labels = dict[Annotated[str, msgspec.Meta(pattern=r"\A[a-zA-Z_][a-zA-Z0-9_]*\Z")], str]


class PostableAlert(msgspec.Struct, forbid_unknown_fields=True):
    """As api/v2/openapi.yaml of Alertmanager has it."""

    labels: Labels
    annotations: Labels
    startsAt: datetime  # noqa: N815 - its name
    endsAt: datetime  # noqa: N815 - its name
    generatorURL: str = ""  # noqa: N815 - its name


def _send(url: str, *alerts: Alert, folder: Path, hub_url: str = "", token_file: str = "") -> None:
    async def send() -> None:
        sender = AlertmanagerSender(Alertmanager(name="am", url=url, token_file=token_file), folder, hub_url)
        messages = [AlertMessage("key", "am", Occasion.RAISED, alert, 0.0, 0.0) for alert in alerts]
        try:
            await sender.send(messages, time.time())
        finally:
            await sender.close()

    asyncio.run(send())


def _resolved(alert: Alert) -> Alert:
    return msgspec.structs.replace(alert, state=State.RESOLVED, ended_at_s=time.time() - 1.0)


def test_a_post_has_the_shape_that_is_documented(tmp_path: Path) -> None:
    receiver = HttpReceiver()
    (tmp_path / "token").write_text("a token")
    try:
        url = receiver.url.removesuffix("/alerts")
        other = _resolved(firing("cam-04", model="letters"))
        _send(
            url,
            firing("cam-03"),
            other,
            folder=tmp_path,
            hub_url="https://muster.example.org/",
            token_file="token",
        )
        (request,) = receiver.received
    finally:
        receiver.close()
    assert request.path == "/api/v2/alerts"
    assert request.headers["Authorization"] == "Bearer a token"
    first, second = msgspec.json.decode(request.body, type=list[PostableAlert])
    assert first.labels == {
        "alertname": "MusterDrift",
        "severity": "warning",
        "kind": "drift",
        "alert": "drift:digits:input.mean",
        "model": "digits",
    }
    assert first.annotations["command"] == "muster device show cam-03"
    assert first.generatorURL == "https://muster.example.org/api/v1/drift?model=digits"
    assert first.endsAt.timestamp() == pytest.approx(time.time() + LEAST_VALIDITY_S, abs=60)
    assert second.endsAt.timestamp() == pytest.approx(other.ended_at_s, abs=1e-3)
    assert not any("cam-0" in value for alert in (first, second) for value in alert.labels.values())


def test_a_real_one_shows_an_alert_until_it_ends(tmp_path: Path) -> None:
    with running_alertmanager(tmp_path) as url:

        def shown() -> list[dict[str, str]]:
            alerts = httpx.get(f"{url}/api/v2/alerts").json()
            return [{**alert["labels"], "command": alert["annotations"]["command"]} for alert in alerts]

        alert = firing("cam-03", started_at_s=time.time() - 60.0)
        _send(url, alert, firing("cam-04", model="letters"), folder=tmp_path)
        assert {row["alert"] for row in shown()} == {"drift:digits:input.mean", "drift:letters:input.mean"}
        assert {row["command"] for row in shown()} == {"muster device show cam-03"}
        _send(url, _resolved(alert), folder=tmp_path)
        assert [row["alert"] for row in shown()] == ["drift:letters:input.mean"]


def test_what_it_refuses_is_said(tmp_path: Path) -> None:
    receiver = HttpReceiver(400)
    try:
        with pytest.raises(Unavailable, match="HTTP status 400"):
            _send(receiver.url, firing("cam-03"), folder=tmp_path)
    finally:
        receiver.close()
