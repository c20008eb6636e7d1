"""Health and alarms of the fleet as people and programs ask for them, from a real hub that finds a fleet."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import msgspec
import pytest

from fleet.drift.alarms import AlarmState, FeatureDrift
from fleet.protocol.errors import InvalidInput, InvalidTarget, NotFound
from fleet.protocol.messages import ModelState, StateReport
from hub.broker.accounts import hash_password
from hub.store.rows import DriftRow
from hub.store.sqlite import SqliteStore
from hub.store.telemetry_rows import TelemetryStep
from tests.support.hub import HubProcess
from tests.support.stores import DIGEST, new_device, say

DEVICES = [f"cam-{number:02}" for number in range(40)]
SILENT = 3
"""So many, the last ones, were never heard of."""
DRIFTING = [f"cam-{number:02}" for number in (0, 3, 6, 9, 12, 15)]
"""Every third has camera-b; these are some of them."""
LOOK = FeatureDrift("input.mean", 300, True, 4.0, 9.0, split="below 0.41", share=0.61, expected=0.05)
CALM = "cam-31"
"""Looked at without an alarm; a version that it ran before had one."""


def write_fleet(store: SqliteStore) -> None:
    """Enrol devices that run version 1 of a model, some of which drift."""
    password_hash = hash_password("of every device")
    for number, device in enumerate(DEVICES):
        store.add_enrolment_token(device, created_at_s=0.0, expires_at_s=2e9)
        attributes = {"camera": "ab"[number % 3 == 0], "line": str(number), "site": "lyon"}
        joining = msgspec.structs.replace(
            new_device(device), attributes=attributes, password_hash=password_hash
        )
        store.enrol(joining, token_sha256=device, now_s=1.0)
    now_s = time.time()
    for device in DEVICES[:-SILENT]:
        state = ModelState("digits", 1, DIGEST, "onnx-fp32", "COMMITTED", "r1-0f")
        say(store, device, now_s, report=StateReport(now_s, 0, (state,)))
    alarms = [
        DriftRow(device, "digits", 1, AlarmState(looks=3, raised=("input.mean",)), (LOOK,), now_s, now_s)
        for device in DRIFTING
    ]
    weaker = msgspec.structs.replace(LOOK, evidence=1.0)
    calm = DriftRow(CALM, "digits", 1, AlarmState(looks=3), (weaker,), None, now_s)
    former = msgspec.structs.replace(alarms[0], device_id=CALM, version=7)
    never = DriftRow(DEVICES[0], "digits", 8)
    store.save_telemetry(TelemetryStep(position=1, received_at_s=now_s, drift=[*alarms, calm, former, never]))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub that is started on what another run of it has left."""
    settings = {"group_by": ("site", "camera", "line"), "offline_after_s": 3600.0}
    process = HubProcess(tmp_path_factory.mktemp("health") / "home", broker="embedded", settings=settings)
    with closing(SqliteStore(process.home / "hub.db")) as store:
        write_fleet(store)
    with process:
        yield process


def health(hub: HubProcess, **asked: Any) -> dict[str, Any]:
    answer: dict[str, Any] = hub.client.get("/fleet/health", **asked)
    return answer


def test_the_fleet_is_counted(hub: HubProcess) -> None:
    answer = health(hub)
    assert (answer["devices"], answer["online"], answer["waiting"]) == (40, 37, 0)
    assert answer["by_health"] == {"HEALTHY": 0, "UPDATING": 0, "UNHEALTHY": 37, "OFFLINE": 3}
    [model] = answer["models"]
    assert (model["devices"], model["by_version"], model["as_desired"]) == (37, {"1": 37}, 0)
    assert (model["drifting"], model["drifting_devices"]) == (DRIFTING, 6)
    assert answer["groups"] is None


def test_unwell_devices_come_in_pages(hub: HubProcess) -> None:
    first = health(hub, limit=30)
    assert [row["device_id"] for row in first["unwell"]] == DEVICES[:30]
    rest = health(hub, limit=30, after=first["next"])
    assert [row["device_id"] for row in rest["unwell"]] == DEVICES[30:]
    assert (rest["next"], rest["unwell"][-1]["reasons"]) == (None, ["not connected"])
    assert len(health(hub, model="digits")["unwell"]) == 37


@pytest.mark.parametrize(
    ("by", "named"),
    [
        ("camera", [("a", 26), ("b", 14)]),
        ("state", [("UNHEALTHY", 37), ("OFFLINE", 3)]),
        ("version", [("digits 1", 37)]),
        ("architecture", [("x86_64", 40)]),
        ("hardware", [(None, 40)]),
    ],
)
def test_the_fleet_is_grouped(hub: HubProcess, by: str, named: list[tuple[str | None, int]]) -> None:
    groups = health(hub, by=by)["groups"]
    assert [(group["value"], group["devices"]) for group in groups["items"]] == named
    assert (groups["by"], groups["values"], groups["others"]) == (by, len(named), None)
    counted = health(hub, by=by, model="digits")
    assert sum(group["devices"] for group in counted["groups"]["items"]) == counted["devices"] == 37


def test_what_cannot_be_grouped_by_is_refused_with_what_can(hub: HubProcess) -> None:
    with pytest.raises(InvalidInput) as refused:
        health(hub, by="owner")
    assert "camera" in refused.value.remedy
    with pytest.raises(NotFound):
        health(hub, model="unknown")
    with pytest.raises(InvalidInput):
        health(hub, model="No name")


def test_an_alarm_names_what_its_devices_share(hub: HubProcess) -> None:
    [alarm] = hub.client.get("/drift/alarms")["items"]
    assert (alarm["model"], alarm["feature"], alarm["devices"]) == ("digits", "input.mean", DRIFTING)
    assert (alarm["device_count"], alarm["of_devices"], alarm["versions"]) == (6, 37, [1])
    assert alarm["evidence"] == LOOK.sentence
    assert 0.0 < alarm["since_s"] == alarm["until_s"] <= time.time()
    [shared] = alarm["shared"]
    assert (shared["trait"], shared["holders"], shared["other_holders"]) == ({"camera": "b"}, 6, 7)
    assert shared["sentence"] in alarm["sentence"]
    assert len(hub.client.get("/drift/alarms", model="digits")["items"]) == 1
    with pytest.raises(NotFound):
        hub.client.get("/drift/alarms", model="letters")
    with pytest.raises(NotFound):
        hub.client.get("/drift", model="letters")


def test_devices_are_found_by_what_their_alarm_names(hub: HubProcess) -> None:
    found = hub.client.get("/devices", where='drifts("input.mean")')["items"]
    assert [row["device_id"] for row in found] == DRIFTING
    assert hub.client.get("/devices", where='drifts("input.std")')["items"] == []
    rest = hub.client.get("/devices", where='id like "cam-*" and not drifts("input.mean")')["items"]
    assert len(rest) == len(DEVICES) - len(DRIFTING)


def looks(hub: HubProcess, **parameters: Any) -> list[tuple[str, int]]:
    rows = hub.client.pages("/drift", **parameters)
    return [(row["device_id"], row["version"]) for row in rows]


def test_last_looks_are_of_what_devices_run_and_come_in_pages(hub: HubProcess) -> None:
    alarmed = [(device, 1) for device in DRIFTING]
    now = sorted([*alarmed, (CALM, 1)])
    first = hub.client.get("/drift", limit=3)
    assert [row["device_id"] for row in first["items"]] == [device for device, _ in now[:3]]
    assert first["next"] == now[2][0]
    for limit in (1, 2, 3, 7, 100):
        assert looks(hub, limit=limit) == now
        assert looks(hub, limit=limit, current=False) == sorted([*now, (CALM, 7)])
        assert looks(hub, limit=limit, alarms=True) == alarmed
        assert looks(hub, limit=limit, alarms=True, current=False) == sorted([*alarmed, (CALM, 7)])
        assert looks(hub, limit=limit, where=f'id == "{CALM}" or drifts("input.mean")') == now
        assert looks(hub, limit=limit, where=f'id == "{CALM}"', alarms=True) == []
    assert looks(hub, device_id=CALM, model="digits", current=False) == [(CALM, 1), (CALM, 7)]
    assert looks(hub, device_id=CALM, where="not online") == []
    with pytest.raises(InvalidTarget):
        looks(hub, where="id =")


def test_the_command_shows_the_strongest_looks_first(hub: HubProcess) -> None:
    lines = hub.muster("fleet", "drift").splitlines()
    shown = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert (set(shown[:-1]), shown[-1]) == (set(DRIFTING), CALM)
    few = hub.muster("fleet", "drift", "--limit", "2", "--model", "digits")
    assert few.count("cam-") == 2
    assert "5 more are not shown" in few
    assert hub.muster("fleet", "drift", "--alarms").count("cam-") == 6
    assert hub.muster("fleet", "drift", "--all", "--former").count(CALM) == 2
    assert hub.muster("fleet", "drift", "--where", f'id == "{CALM}"').count("cam-") == 1
    found = json.loads(hub.muster("fleet", "drift", "--json"))
    assert [row["device_id"] for row in found][-1] == CALM
    assert len(found) == 7


def test_commands_show_it(hub: HubProcess) -> None:
    shown = hub.muster("fleet", "health", "--by", "camera", "--limit", "2")
    assert "40 devices, 37 online" in shown
    assert "cam-01" in shown
    assert "cam-02" not in shown.split("because")[1]
    assert "6 of 6 affected devices have camera=b" in hub.muster("fleet", "alarms")


def test_metrics_are_those_of_the_states(hub: HubProcess) -> None:
    page = httpx.get(f"{hub.url}/metrics").text
    assert 'muster_devices{health="UNHEALTHY"} 37.0' in page
    assert 'muster_drift_alarms{model="digits"} 6.0' in page
