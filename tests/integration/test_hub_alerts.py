"""A running hub raises alerts and tells of them: over its death, silenced, acknowledged, and to the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from fleet.protocol import messages, topics
from fleet.protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, parse_token
from fleet.protocol.errors import (
    Conflict,
    InvalidConfiguration,
    InvalidInput,
    NotFound,
    NotPermitted,
    Unavailable,
)
from fleet.protocol.messages import Hello, Presence
from fleet.protocol.topics import Up
from hub.alerts.messages import WebhookBody
from hub.alerts.settings import ALERTS_FILE
from hub.cli.app import app
from hub.cli.client import Client
from tests.support.hub import HubProcess
from tests.support.mqtt_client import Client as MqttClient
from tests.support.receivers import HANG, HttpReceiver
from tests.support.stores import CAPABILITIES
from tests.support.waiting import eventually

SECRET = "0123456789abcdef0123456789abcdef"
SETTINGS = """
regroup_interval_s = 1

[rules]
look_interval_s = 0.1
offline_hold_s = 0
clear_after_s = 0

[[receiver]]
name = "ops"
kind = "webhook"
url = "{url}"
secret_file = "ops.secret"
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[HttpReceiver]:
    made = HttpReceiver(HANG)
    yield made
    made.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, receiver: HttpReceiver) -> Iterator[HubProcess]:
    """A hub of this module alone, which tells one webhook of everything."""
    settings = {"offline_after_s": 3600.0}  # whoever is there says so once
    made = HubProcess(tmp_path_factory.mktemp("hub") / "home", broker="embedded", settings=settings)
    (made.home / "ops.secret").write_text(SECRET)
    (made.home / ALERTS_FILE).write_text(SETTINGS.format(url=receiver.url))
    with made:
        yield made


def _enrol(hub: HubProcess, device_id: str) -> EnrolmentAnswer:
    token = parse_token(hub.client.post("/enrolment-tokens")["token"])
    request = EnrolmentRequest(token.secret, device_id, CAPABILITIES)
    response = httpx.post(f"{hub.url}/api/v1/enrol", content=msgspec.json.encode(request))
    return msgspec.json.decode(response.content, type=EnrolmentAnswer)


def _bodies(receiver: HttpReceiver) -> list[WebhookBody]:
    return [msgspec.json.decode(request.body, type=WebhookBody) for request in receiver.received]


def _muster(hub: HubProcess, *arguments: str) -> str:
    done = CliRunner().invoke(
        app, ["--url", hub.url, *arguments], env={"MUSTER_TOKEN": hub.token, "COLUMNS": "200"}
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_an_alert_from_its_beginning_to_its_end(hub: HubProcess, receiver: HttpReceiver) -> None:
    first = _enrol(hub, "cam-1")  # it never connects: the fleet is offline
    _outlives_the_hub_that_is_killed_while_it_tells(hub, receiver)
    _is_seen_taken_and_silenced(hub)
    told = len(receiver.received)
    second = _enrol(hub, "cam-2")
    _grows_untold_while_it_is_silenced(hub, receiver, told)
    connected = [_connect(first, "cam-1"), _connect(second, "cam-2")]
    eventually(lambda: _bodies(receiver)[-1].occasion == "resolved", "the receiver is told of the end")
    assert hub.client.get("/alerts")["items"] == []
    assert [a["state"] for a in hub.client.get("/alerts", ended=True)["items"]] == ["RESOLVED"]
    assert [body.occasion for body in _bodies(receiver)].count("resolved") == 1
    assert _bodies(receiver)[-1].alert.sentence.startswith("Resolved: ")
    with pytest.raises(Conflict):
        _muster(hub, "alerts", "ack", "offline")
    for client in connected:
        client.close()


def _outlives_the_hub_that_is_killed_while_it_tells(hub: HubProcess, receiver: HttpReceiver) -> None:
    eventually(lambda: receiver.received, "the receiver is told, and does not answer")
    (alert,) = hub.client.get("/alerts")["items"]
    assert (alert["key"], alert["state"], alert["severity"]) == ("offline", "FIRING", "critical")
    hub.kill()
    before = len(receiver.received)
    receiver.behaviour = 200
    hub.start()

    def told() -> bool:
        (message,) = hub.client.get("/alerts/offline")["messages"]
        return bool(message["outcome"] == "sent")

    eventually(told, "the receiver is told again")
    assert len(receiver.received) > before
    bodies = _bodies(receiver)
    assert len({body.id for body in bodies}) == 1
    assert {body.occasion for body in bodies} == {"raised"}
    assert bodies[0].alert.command == "muster device show cam-1"
    assert bodies[0].alert.evidence == ["cam-1: not connected"]


def _is_seen_taken_and_silenced(hub: HubProcess) -> None:
    listed = _muster(hub, "alerts", "list")
    assert "offline: muster device show cam-1" in listed
    shown = _muster(hub, "alerts", "show", "offline")
    assert "act:      muster device show cam-1" in shown
    assert "evidence: cam-1: not connected" in shown
    assert "taken by admin" in _muster(hub, "alerts", "ack", "offline", "--note", "on my way")
    assert json.loads(_muster(hub, "alerts", "show", "offline", "--json"))["note"] == "on my way"
    narrowed = ("--kind", "offline", "--severity", "critical", "--for", "2h", "--reason", "moving house")
    made = _muster(hub, "alerts", "silence", *narrowed)
    assert made.startswith("Silence 1 ends at ")
    eventually(lambda: hub.client.get("/alerts/offline")["silence"] == 1, "the silence is in force")
    silences = json.loads(_muster(hub, "alerts", "silences", "--json"))
    assert [(s["by"], s["reason"], s["kinds"]) for s in silences] == [("admin", "moving house", ["offline"])]
    assert silences[0]["severities"] == ["critical"]
    assert "moving house" in _muster(hub, "alerts", "silences")


def _grows_untold_while_it_is_silenced(hub: HubProcess, receiver: HttpReceiver, told: int) -> None:
    eventually(lambda: hub.client.get("/alerts/offline")["device_count"] == 2, "two devices are offline")
    assert len(receiver.received) == told
    assert _muster(hub, "alerts", "unsilence", "1") == "Silence 1 has ended.\n"
    with pytest.raises(Conflict):
        _muster(hub, "alerts", "unsilence", "1")
    eventually(lambda: len(receiver.received) > told, "the receiver is told that it grew")
    assert (_bodies(receiver)[-1].occasion, _bodies(receiver)[-1].alert.device_count) == ("grew", 2)


def test_a_receiver_is_tested_and_counted(hub: HubProcess, receiver: HttpReceiver) -> None:
    receiver.behaviour = 200
    assert _muster(hub, "alerts", "test", "ops") == "ops took a test message.\n"
    assert _bodies(receiver)[-1].occasion == "test"
    receiver.behaviour = 500
    with pytest.raises(Unavailable, match="HTTP status 500"):
        _muster(hub, "alerts", "test", "ops")
    receiver.behaviour = 200
    (row,) = hub.client.get("/receivers")
    assert (row["name"], row["kind"], row["waiting"], row["given_up"]) == ("ops", "webhook", 0, 0)
    metrics = httpx.get(f"{hub.url}/metrics").text
    assert 'muster_notifications_total{outcome="failed",receiver_kind="webhook"}' in metrics
    assert 'muster_alerts{severity="critical",state="firing"}' in metrics


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("show", "nothing"), NotFound),
        (("ack", "nothing"), NotFound),
        (("test", "nobody"), NotFound),
        (("unsilence", "99"), NotFound),
        (("silence", "--for", "2h", "--reason", "x"), InvalidInput),
        (("silence", "--for", "soon", "--reason", "x", "--kind", "drift"), InvalidInput),
        (("silence", "--for", "2h", "--reason", "x", "--kind", "drifts"), InvalidInput),
        (("silence", "--for", "2h", "--reason", "x", "--model", "nothing"), NotFound),
        (("silence", "--for", "2h", "--reason", "x", "--device", "nobody"), NotFound),
        (("silence", "--for", "999d", "--reason", "x", "--kind", "drift"), InvalidInput),
        (("silence", "--for", "2h", "--reason", "", "--kind", "drift"), InvalidInput),
    ],
)
def test_what_there_is_not_is_an_error(
    hub: HubProcess, arguments: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        _muster(hub, "alerts", *arguments)


def test_viewers_see_and_do_not_touch(hub: HubProcess) -> None:
    token = hub.muster("hub", "token", "eve", "--role", "viewer", "--home", str(hub.home)).strip()
    viewer = Client(hub.url, token)
    try:
        assert isinstance(viewer.get("/alerts", ended=True)["items"], list)
        body = {"kinds": ["drift"], "for_s": 60, "reason": "x"}
        for path, sent in (
            ("/silences", body),
            ("/silences/1/end", None),
            ("/alerts/offline/acknowledge", {}),
            ("/receivers/ops/test", None),
        ):
            with pytest.raises(NotPermitted):
                viewer.post(path, sent)
        told: list[Any] = viewer.get("/receivers")
        assert set(told[0]) == {"name", "kind", "waiting", "given_up", "last_sent_at_s", "error"}
    finally:
        viewer.close()


def test_a_file_that_is_wrong_keeps_the_hub_from_starting_and_a_right_one_is_told(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "home", broker="embedded")
    file = hub.home / ALERTS_FILE
    assert "nobody is told" in _checked(hub.home)
    file.write_text('[[receiver]]\nname = "ops"\nkind = "webhook"\nurl = "https://ops.example.org"\n')
    why = f"{file}, line 2: It needs secret_file or secret_env."
    with pytest.raises(InvalidConfiguration) as refused:
        _checked(hub.home)
    assert str(refused.value) == why
    started = hub.muster("hub", "serve", "--home", str(hub.home), check=False)
    assert started == f"error: {why} [invalid_configuration]\n"
    (hub.home / "ops.secret").write_text(SECRET)
    file.write_text(file.read_text() + 'secret_file = "ops.secret"\n')
    assert _checked(hub.home) == "ops: webhook\neverything → ops\n"


def _checked(home: Path) -> str:
    done = CliRunner().invoke(app, ["alerts", "check", "--home", str(home)], catch_exceptions=False)
    return done.output


class _Access(NamedTuple):
    """A device's way to the hub's broker."""

    port: int
    passwords: dict[str, str]


def _connect(answer: EnrolmentAnswer, device_id: str) -> MqttClient:
    access = _Access(answer.broker.port, {device_id: answer.broker.password})
    client = MqttClient(access, device_id).wait_connected()
    client.publish(topics.up(device_id, Up.PRESENCE), messages.encode(Presence(online=True)))
    client.publish(
        topics.up(device_id, Up.HELLO), messages.encode(Hello(messages.PROTOCOL_VERSION, 0, CAPABILITIES))
    )
    return client
