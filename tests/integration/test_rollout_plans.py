"""Plans given to a real hub: the dry run is what is then created, and refusals name the line."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from fleet.rollout.plans.schema import plan_schema
from hub.broker.accounts import hash_password, new_password
from hub.store.rows import NewDevice
from hub.store.sqlite import SqliteStore
from tests.conftest import MODEL
from tests.support.command_line import Muster, muster_on
from tests.support.hub import HubProcess
from tests.support.stores import CAPABILITIES

SITES = {f"plan-{number:02d}": "plan-lyon" if number % 4 else "plan-oslo" for number in range(16)}
FULL, BARE, HELD = "plan-01", "plan-02", "plan-03"
PLAN = """\
target: id like "plan-*"
stages:
  - {name: canary, devices: 2, minimum_bake_s: 60, maximum_bake_s: 3600}
  - {name: oslo, cohort: site == "plan-oslo", minimum_bake_s: 60, maximum_bake_s: 3600}
  - {devices: all, minimum_devices: 5, minimum_bake_s: 0, maximum_bake_s: 3600}
stratify_by: [site]
devices_per_minute: 2
gate:
  metrics: [{metric: inference_errors, margin: 0.02, limit: 0.02}]
"""


@pytest.fixture(scope="module", autouse=True)
def fleet(hub: HubProcess) -> None:
    """Sixteen devices; one has no space, one no runtime, one is held."""
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        now_s, password = time.time(), hash_password(new_password())
        for device_id, site in SITES.items():
            can = msgspec.structs.replace(CAPABILITIES, obeys_wishes=True)
            if device_id == FULL:
                can = msgspec.structs.replace(can, free_bytes=10)
            if device_id == BARE:
                can = msgspec.structs.replace(can, runtimes={})
            store.add_enrolment_token(device_id, created_at_s=now_s, expires_at_s=now_s + 60.0)
            device = NewDevice(device_id, password, {"site": site}, can)
            store.enrol(device, token_sha256=device_id, now_s=now_s)
    answer = _post(hub, f"/devices/{HELD}/hold", {"reason": "on the road"})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def muster(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Muster:
    """Runs commands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return muster_on(hub, monkeypatch, capsys)


def _post(hub: HubProcess, path: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {hub.token}"}
    return httpx.post(f"{hub.url}/api/v1{path}", headers=headers, json=body, timeout=30)


def test_the_dry_run_is_what_is_then_created_and_stores_nothing(
    hub: HubProcess, muster: Muster, tmp_path: Path
) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    before = json.loads(muster("rollout", "list", "--json")[0])
    told = json.loads(muster("rollout", "plan", "plan.yaml", "--model", MODEL, "--version", "1", "--json")[0])
    assert json.loads(muster("rollout", "list", "--json")[0]) == before
    arguments = ("rollout", "create", MODEL, "1", "--plan", "plan.yaml", "--json")
    made = json.loads(muster(*arguments)[0])
    parts = json.loads(muster("rollout", "devices", str(made["number"]), "--json")[0])
    assert {part["tries"] for part in parts} == {0}
    assert "retries" in muster("rollout", "devices", str(made["number"]))[0]
    staged = [{p["device_id"] for p in parts if p["stage"] == n} for n in (1, 2, 3)]
    assert [set(stage["named"]) for stage in told["stages"]] == staged
    assert {SITES[name] for name in staged[0]} == {"plan-lyon", "plan-oslo"}
    assert {SITES[name] for name in staged[1]} == {"plan-oslo"}
    assert {r["device_id"]: r["obstacle"] for r in told["refusals"]} == {
        FULL: "space",
        BARE: "unsupported",
        HELD: "held",
    }
    assert [stage["strata"]["site"] for stage in told["stages"]][1] == {"plan-oslo": 3}
    assert told["stages"][2]["expected_s"] >= (told["stages"][2]["devices"] - 1) * 30
    assert told["most_bytes"] > told["broadcast_bytes"] > 0


def test_people_are_told_the_same(muster: Muster, tmp_path: Path) -> None:
    plan = PLAN.replace("name: canary", "name: '[/first]'")
    (tmp_path / "plan.yaml").write_text(f"{plan}priority: 1\n")  # above what others of these tests created
    printed, _ = muster("rollout", "plan", "plan.yaml", "--model", MODEL, "--version", "1", "--dry-run")
    assert f"{MODEL} version 1 would reach 16 devices" in printed
    assert f"{HELD}: The hub holds its updates" in printed
    assert "1 [/first]" in printed, "a name is no markup"
    printed, _ = muster("rollout", "plan", "plan.yaml", "--model", MODEL, "--version", "1", "--check")
    assert printed == "The plan is accepted: 16 devices in 3 stages.\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("plan-*", "nobody-*", "Line 1, column 9: target: no device matches"),
        ('id like "plan-*"', 'flour == "3"', "Line 1, column 9: target: No device has the attribute 'flour'"),
        ('site == "plan-oslo"', 'version("nothing") > 1', "Line 4, column 26: stages[1].cohort: "),
        ("[site]", "[site, flour]", "Line 6, column 21: stratify_by: no device has the attribute 'flour'"),
        ("minimum_devices: 5", "minimum_devices: 50", "Line 5, column 37: Stage 3: minimum_devices 50"),
        ("devices: 2,", "devices: 200%,", "Line 3, column 29: Stage 1: devices '200%'"),
        ("margin: 0.02", "margin: much", "Line 9, column 48: "),
        (
            "metrics: [{metric: inference_errors, margin: 0.02, limit: 0.02}]",
            "error_budget: 0.01",
            "Line 9, column 3: gate.metrics: an update needs at least one metric to be judged by.",
        ),
        ('id like "plan-*"', 'id == "plan-00" and id == "plan-01"', "column 9: target: no device matches"),
        ('== "plan-oslo"', '== "plan-oslo" and id == "plan-01"', "Line 4, column 26: Stage 2: its cohort "),
        (
            "  - {devices: all",
            '  - {cohort: site == "plan-oslo", minimum_bake_s: 0, maximum_bake_s: 1}\n  - {devices: all',
            "Line 5, column 14: Stage 3: its cohort 'site == \"plan-oslo\"' adds no device",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_its_line(
    muster: Muster, tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert PLAN.count(old) == 1
    (tmp_path / "plan.yaml").write_text(PLAN.replace(old, new))
    for arguments in (
        ("plan", "plan.yaml", "--model", MODEL, "--version", "1"),
        ("create", MODEL, "1", "--plan", "plan.yaml"),
    ):
        printed, wrong = muster("rollout", *arguments)
        assert printed == ""
        assert said in " ".join(wrong.split())


def test_two_rollouts_that_fight_over_devices_are_refused_with_the_line(
    muster: Muster, tmp_path: Path
) -> None:
    (tmp_path / "plan.yaml").write_text("priority: 7\n" + PLAN)
    arguments = ("rollout", "create", MODEL, "1", "--plan", "plan.yaml")
    asked = ("rollout", "plan", "plan.yaml", "--model", MODEL, "--version", "1")
    number = json.loads(muster(*arguments, "--json")[0])["number"]
    printed, wrong = muster(*arguments)
    assert printed == ""
    assert (
        f"Line 1, column 11: priority: rollout {number} of the same priority, 7, reaches 16 devices "
        "(plan-00, plan-01, plan-02, plan-03, plan-04 and 11 more) too."
    ) in " ".join(wrong.split())
    told = json.loads(muster(*asked, "--json")[0])
    assert (told["obstacles"]["claimed"], told["devices"], told["forecast"]) == (16, 0, [])
    refused = f"priority: rollout {number} of the same priority, 7, reaches 16 devices"
    assert f"`rollout create` would refuse this plan: {refused}" in " ".join(muster(*asked)[0].split())
    printed, wrong = muster(*asked, "--check")
    assert printed == ""
    assert refused in " ".join(wrong.split())
    muster("rollout", "abort", str(number))
    again = json.loads(muster(*arguments, "--json")[0])["number"]
    muster("rollout", "abort", str(again))


def test_what_could_be_created_and_not_started_is_said(muster: Muster, tmp_path: Path) -> None:
    times, gate = "minimum_bake_s: 0, maximum_bake_s: 3600", PLAN[PLAN.index("gate:") :]
    (tmp_path / "first.yaml").write_text(
        f'priority: 9\ntarget: id like "plan-0*"\nstages: [{{devices: all, {times}}}]\n{gate}'
    )
    (tmp_path / "plan.yaml").write_text(
        f'priority: 8\ntarget: id like "plan-*"\n'
        f"stages:\n  - {{devices: 8, {times}}}\n  - {{devices: all, {times}}}\n{gate}"
    )
    first = json.loads(muster("rollout", "create", MODEL, "1", "--plan", "first.yaml", "--json")[0])["number"]
    asked = ("rollout", "plan", "plan.yaml", "--model", MODEL, "--version", "1")
    misfit = (
        "Without what other rollouts keep if they start first, it could not start. "
        "Stage 1: 8 devices are asked for; the rollout has 6."
    )
    for words in (asked, (*asked, "--check")):
        assert misfit in " ".join(muster(*words)[0].split())
    told = json.loads(muster(*asked, "--json")[0])
    assert (told["misfit"], told["refused"], told["forecast"]) == (misfit, "", [])
    said = f"Rollout {first} keeps it if it starts first."
    assert {refusal["detail"] for refusal in told["refusals"]} == {said}
    muster("rollout", "abort", str(first))
    assert misfit not in " ".join(muster(*asked, "--check")[0].split())


def test_a_target_and_named_devices_are_too_much(hub: HubProcess) -> None:
    body = {"model": MODEL, "version": 1, "plan": PLAN, "devices": ["plan-00"]}
    for path in ("/rollouts", "/rollouts/dry-run"):
        answer = _post(hub, path, body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_plan")
        assert answer.json()["detail"].startswith("Line 1, column 9: target: devices are named besides")


def test_a_file_that_is_no_text_is_refused(muster: Muster, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in muster("rollout", "create", MODEL, "1", "--plan", "plan.yaml")[1]
    assert "cannot be read" in muster("rollout", "create", MODEL, "1", "--plan", "none.yaml")[1]


def test_the_schema_is_published(hub: HubProcess, muster: Muster) -> None:
    headers = {"Authorization": f"Bearer {hub.token}"}
    assert httpx.get(f"{hub.url}/api/v1/schemas/plan", headers=headers).json() == plan_schema()
    assert json.loads(muster("rollout", "schema")[0]) == plan_schema()
