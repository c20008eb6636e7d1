"""Operators at a real hub: approval, words that cross, explanations, devices in pages, watching.

The devices are in the hub's store and never answer: what operators see and say does not depend on them.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet.protocol.errors import Conflict, InvalidInput, InvalidPlan, NotPermitted, Outdated
from hub.cli.app import run
from hub.cli.client import Client
from hub.home import add_api_token
from hub.store.rows import Role
from hub.store.sqlite import SqliteStore
from tests.conftest import MODEL
from tests.support.hub import HubProcess
from tests.support.stores import join_running_hub
from tests.support.terminal import Terminal, environment
from tests.support.waiting import eventually

DEVICES = 12
Muster = Callable[..., str]
PLAN = """
target: id like "ops-TEST-*"
stages:
  - {name: canary, devices: 3, minimum_bake_s: 60, maximum_bake_s: 3600}
  - {name: rest, devices: all, minimum_bake_s: 60, maximum_bake_s: 3600, approval: true}
gate:
  metrics: [{metric: inference_errors, margin: 0.02, limit: 0.02}]
"""


@pytest.fixture(scope="module")
def people(hub: HubProcess) -> Iterator[dict[str, Client]]:
    """Three operators and a viewer."""
    roles = {"ann": Role.OPERATOR, "ben": Role.OPERATOR, "cem": Role.OPERATOR, "vic": Role.VIEWER}
    found = {}
    for name, role in roles.items():
        found[name] = Client(hub.url, add_api_token(hub.home, f"ops-{name}", role))
    yield found
    for client in found.values():
        client.close()


@pytest.fixture
def device_ids(hub: HubProcess, request: pytest.FixtureRequest) -> list[str]:
    """Twelve devices of the test's own: those that were ordered something are bound to their rollout."""
    test = request.node.name.removeprefix("test_")[:40].rstrip("_").replace("_", "-")
    found = [f"ops-{test}-{number:02d}" for number in range(DEVICES)]
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        for device_id in found:
            join_running_hub(store, device_id, "ops", time.time())
    return found


@pytest.fixture
def number(people: dict[str, Client], device_ids: list[str]) -> Iterator[int]:
    """A rollout that ann created and started; it is ended after the test."""
    ann = people["ann"]
    plan = PLAN.replace("ops-TEST", device_ids[0].removesuffix("-00"))
    made: int = ann.post("/rollouts", {"model": MODEL, "version": 1, "plan": plan})["number"]
    ann.post(f"/rollouts/{made}/start")
    yield made
    if ann.get(f"/rollouts/{made}")["status"] in {"RUNNING", "PAUSED"}:
        ann.post(f"/rollouts/{made}/abort", {"reason": "the test is over"})


@pytest.fixture
def muster(hub: HubProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Muster:
    """Runs a command of a person in this process and returns what it printed."""

    def call(client: Client, *arguments: str) -> str:
        for name in ("MUSTER_URL", "MUSTER_TOKEN", "COLUMNS"):
            monkeypatch.setenv(name, environment(hub, client)[name])
        monkeypatch.setattr(sys, "argv", ["muster", *arguments])
        with contextlib.suppress(SystemExit):
            run()
        return capsys.readouterr().out

    return call


def test_a_second_person_approves(
    hub: HubProcess, muster: Muster, people: dict[str, Client], number: int
) -> None:
    ann, ben, cem = people["ann"], people["ben"], people["cem"]
    path = f"/rollouts/{number}"
    assert ann.get(path)["movers"] == ["ops-ann"]
    promoted = ben.post(f"{path}/promote", {"reason": "seen it work in the lab", "stage": 1})
    assert promoted["awaits_approval_since_s"] is not None
    assert [stage["started_at_s"] is None for stage in promoted["stages"]] == [False, True]
    for mover in (ann, ben):
        with pytest.raises(NotPermitted, match="cannot be the second person"):
            mover.post(f"{path}/approve", {"stage": 2})
    with pytest.raises(NotPermitted, match="role"):
        people["vic"].post(f"{path}/approve", {"stage": 2})
    with pytest.raises(Conflict, match="waits for approval by a second person"):
        ann.post(f"{path}/promote", {"reason": "again", "stage": 1})
    waits = muster(cem, "rollout", "status", str(number))
    assert "waits for approval" in waits
    assert "promoted by ops-ben: seen it work in the lab" in waits
    told = muster(cem, "rollout", "explain", str(number))
    assert f"muster rollout approve {number} --stage 2" in told
    assert "who is not ops-ann or ops-ben" in told
    assert "Overridden:" in told
    metrics = httpx.get(f"{hub.url}/metrics", timeout=30.0).text
    assert "\nmuster_rollouts_awaiting_approval 1.0\n" in metrics
    done = muster(cem, "rollout", "approve", str(number), "--stage", "2", "--reason", "looks well", "--json")
    approved = json.loads(done)
    assert approved["awaits_approval_since_s"] is None
    assert approved["stages"][1]["approved_by"] == "ops-cem"
    assert approved["stages"][1]["started_at_s"] is not None
    texts = [line["text"] for line in ann.pages(f"{path}/history")]
    assert "Stage 2 of 2 (rest) approved by ops-cem: looks well." in texts
    with pytest.raises(Conflict, match="ops-cem approved of stage 2"):
        cem.post(f"{path}/approve", {"stage": 2})


def race(*words: Callable[[], Any]) -> list[Any]:
    """Say words at the same time; return what each got, or the error."""
    barrier = threading.Barrier(len(words))
    found: list[Any] = [None] * len(words)

    def say(place: int) -> None:
        barrier.wait()
        try:
            found[place] = words[place]()
        except (Conflict, InvalidPlan, NotPermitted) as error:
            found[place] = error

    threads = [threading.Thread(target=say, args=(place,)) for place in range(len(words))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_of_two_who_decide_at_once_exactly_one_wins_and_the_other_is_told(
    people: dict[str, Client], number: int
) -> None:
    ann, ben = people["ann"], people["ben"]
    path = f"/rollouts/{number}"
    for turn in range(10):
        expected = None if turn % 4 < 2 else ann.get(path)["decisions"]
        before = ann.get(path)
        word, past = ("resume", "Resumed by") if before["status"] == "PAUSED" else ("pause", "Paused by")
        found = race(*(partial(one.post, f"{path}/{word}", decisions=expected) for one in (ann, ben)))
        (lost,) = [one for one in found if isinstance(one, Conflict)]
        (won,) = [one for one in found if not isinstance(one, Conflict)]
        name = "ops-ann" if found.index(won) == 0 else "ops-ben"
        assert isinstance(lost, Outdated) == (expected is not None)
        assert f"{past} {name}" in lost.message
        assert won["status"] in lost.message
        assert won["decisions"] == before["decisions"] + 1
    after = ann.get(path)
    assert len(list(ann.pages(f"{path}/history"))) == after["decisions"]


def test_of_words_that_contradict_one_is_carried_out(people: dict[str, Client], number: int) -> None:
    ann, ben, cem = people["ann"], people["ben"], people["cem"]
    path = f"/rollouts/{number}"
    expected = ann.get(path)["decisions"]
    found = race(
        lambda: ann.post(f"{path}/abort", {"reason": "stop", "roll_back": True}, decisions=expected),
        lambda: ben.post(f"{path}/promote", {"reason": "go"}, decisions=expected),
        lambda: cem.post(f"{path}/pause", {"reason": "wait"}, decisions=expected),
    )
    won = [one for one in found if not isinstance(one, Conflict)]
    assert len(won) == 1
    assert all(isinstance(one, Outdated) for one in found if isinstance(one, Conflict))
    kinds = [line["kind"] for line in ann.pages(f"{path}/history")]
    assert len({"overridden", "paused", "rolling_back"} & set(kinds)) == 1


STEPS = """
target: id like "ops-TEST-*"
stages:
  - {devices: 3, minimum_bake_s: 60, maximum_bake_s: 3600}
  - {devices: 6, minimum_bake_s: 60, maximum_bake_s: 3600}
  - {devices: all, minimum_bake_s: 60, maximum_bake_s: 3600}
gate:
  metrics: [{metric: inference_errors, margin: 0.02, limit: 0.02}]
"""


@pytest.fixture
def steps(people: dict[str, Client], device_ids: list[str]) -> Iterator[int]:
    """A rollout of three stages that ann created and started; it is ended after the test."""
    ann, plan = people["ann"], STEPS.replace("ops-TEST", device_ids[0].removesuffix("-00"))
    made: int = ann.post("/rollouts", {"model": MODEL, "version": 1, "plan": plan})["number"]
    ann.post(f"/rollouts/{made}/start")
    yield made
    ann.post(f"/rollouts/{made}/abort", {"reason": "the test is over"})


def test_promotions_at_once_end_one_stage(people: dict[str, Client], steps: int) -> None:
    ann, path = people["ann"], f"/rollouts/{steps}"
    for stage in (1, 2):
        body = {"reason": "  seen\n\x1b[2J it ", "stage": stage}
        words = [partial(people[name].post, f"{path}/promote", body) for name in ("ann", "ben", "cem")]
        found = race(*words)
        (won,) = [one for one in found if not isinstance(one, Conflict)]
        assert won["stage"] == stage + 1
        by = f"ops-{('ann', 'ben', 'cem')[found.index(won)]}"
        for lost in (one for one in found if isinstance(one, Conflict)):
            assert lost.message.startswith(
                f"Rollout {steps} is RUNNING, and it is the turn of stage {stage + 1}, not {stage}. "
                f"Decided since: Stage {stage} promoted by {by}: seen [2J it. The gate had said: "
            )
    kinds = [line["kind"] for line in ann.pages(f"{path}/history")]
    assert kinds.count("overridden") == 2


def test_a_promotion_or_approval_says_what_it_is_about(
    hub: HubProcess, muster: Muster, people: dict[str, Client], steps: int
) -> None:
    ann, path = people["ann"], f"/rollouts/{steps}"
    url, headers = f"{hub.url}/api/v1{path}", dict(ann._http.headers)
    for word in ("promote", "approve"):
        for expected in ({}, {"If-Match": "*"}):
            told = httpx.post(
                f"{url}/{word}", headers={**headers, **expected}, json={"reason": "x"}, timeout=30.0
            )
            assert (told.status_code, told.json()["code"]) == (428, "precondition_required")
            assert "--stage N" in told.json()["remedy"]
    for blank in ("", " \n\t ", "\u200b"):
        with pytest.raises(InvalidInput, match="reason is empty"):
            ann.post(f"{path}/promote", {"reason": blank, "stage": 1})
    with pytest.raises(InvalidInput, match="no stage 9"):
        ann.post(f"{path}/promote", {"reason": "x", "stage": 9})
    with pytest.raises(Conflict, match=r"turn of stage 1, not 3\. Look again"):
        ann.post(f"{path}/promote", {"reason": "x", "stage": 3})
    words = ("rollout", "promote", str(steps), "--reason", "x", "--yes", "--json")
    assert muster(ann, *words) == ""
    assert ann.get(path)["stage"] == 1
    decisions = ann.get(path)["decisions"]
    assert ann.post(f"{path}/promote", {"reason": "x"}, decisions=decisions)["stage"] == 2
    assert muster(ann, *words, "--stage", "1") == ""
    assert json.loads(muster(ann, *words, "--stage", "2"))["stage"] == 3


@pytest.mark.long
def test_of_commands_that_promote_at_once_one_is_carried_out(
    hub: HubProcess, people: dict[str, Client], steps: int
) -> None:
    ann, words = people["ann"], ("rollout", "promote", str(steps), "--reason", "x", "--yes")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "hub", *words, "--stage", "1"],
            env=environment(hub, ann),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert sorted(process.wait(60.0) for process in started) == [0, 1]
    assert ann.get(f"/rollouts/{steps}")["stage"] == 2


def drawn_up(client: Client, device_ids: list[str], priority: int = 0) -> dict[str, Any]:
    """Create a rollout to some devices."""
    plan = {
        "target": f"id in {json.dumps(device_ids)}",
        "priority": priority,
        "stages": [{"devices": "all", "minimum_bake_s": 60, "maximum_bake_s": 3600}],
        "gate": {"metrics": [{"metric": "inference_errors", "margin": 0.02, "limit": 0.02}]},
    }
    made: dict[str, Any] = client.post("/rollouts", {"model": MODEL, "version": 1, "plan": plan})
    return made


def test_of_plans_that_overlap_and_are_written_at_once_exactly_one_is_taken(
    people: dict[str, Client], device_ids: list[str]
) -> None:
    who = [people[name] for name in ("ann", "ben", "cem")]
    reach = [device_ids[:6], device_ids[4:10], [*device_ids[:1], *device_ids[9:]]]  # each two share a device
    for _ in range(5):
        found = race(*(partial(drawn_up, one, mine) for one, mine in zip(who, reach, strict=True)))
        (won,) = [one for one in found if isinstance(one, dict)]
        lost = [one for one in found if isinstance(one, InvalidPlan)]
        assert len(lost) == 2
        assert all(
            f"rollout {won['number']} of the same priority, 0, reaches 1" in one.message
            or f"rollout {won['number']} of the same priority, 0, reaches 2" in one.message
            for one in lost
        )
        who[0].post(f"/rollouts/{won['number']}/abort", {"reason": "the next turn"})


def test_of_rollouts_that_start_at_once_each_device_belongs_to_one(
    people: dict[str, Client], device_ids: list[str]
) -> None:
    ann, ben = people["ann"], people["ben"]
    low = drawn_up(ann, device_ids[:8])["number"]
    high = drawn_up(ben, device_ids[4:], priority=5)["number"]
    found = race(
        *(partial(one.post, f"/rollouts/{number}/start") for one, number in ((ann, low), (ben, high)))
    )
    assert [one["status"] for one in found] == ["RUNNING", "RUNNING"]
    ordered = [
        part["device_id"]
        for number in (low, high)
        for part in ann.pages(f"/rollouts/{number}/devices")
        if part["ordered_at_s"] is not None
    ]
    for number in (low, high):
        ann.post(f"/rollouts/{number}/abort", {"reason": "the test is over"})
    assert sorted(ordered) == device_ids


def test_a_stage_whose_devices_were_taken_has_those_that_are_left(
    muster: Muster, people: dict[str, Client], number: int, device_ids: list[str]
) -> None:
    ann, path = people["ann"], f"/rollouts/{number}"
    canaries = {part["device_id"] for part in ann.pages(f"{path}/devices", stage=1)}
    urgent = drawn_up(ann, device_ids[:8], priority=5)["number"]
    ann.post(f"/rollouts/{urgent}/start")
    taken = len(set(device_ids[:8]) - canaries)
    counts = [(stage["devices"], stage["canceled"]) for stage in ann.get(path)["stages"]]
    assert counts == [(3, 0), (9 - taken, taken)]
    shown = muster(ann, "rollout", "status", str(number))
    (line,) = [line for line in shown.splitlines() if "2 rest" in line]
    assert [cell.strip() for cell in line.split("│")[2:6]] == [str(9 - taken), "0", "0", str(taken)]
    for each in (urgent, number):
        ann.post(f"/rollouts/{each}/abort", {"reason": "the test is over"})
    counts = [(stage["devices"], stage["canceled"]) for stage in ann.get(path)["stages"]]
    assert counts == [(3, 3), (0, 9)], "a stage that has begun keeps whom it sent it to"


def test_the_entity_tag_is_that_of_the_decisions_and_reports_do_not_change_it(
    hub: HubProcess, people: dict[str, Client], number: int
) -> None:
    url, headers = f"{hub.url}/api/v1/rollouts/{number}", dict(people["ann"]._http.headers)
    shown = httpx.get(url, headers=headers, timeout=30.0)
    tag = shown.headers["ETag"]
    assert tag == f'"{shown.json()["decisions"]}"'
    assert httpx.get(f"{url}/explanation", headers=headers, timeout=30.0).headers["ETag"] == tag

    def pause(if_match: str) -> httpx.Response:
        return httpx.post(f"{url}/pause", headers={**headers, "If-Match": if_match}, json={}, timeout=30.0)

    for other in ('"999"', f"W/{tag}", '"x"', '"0", "1"'):
        refused = pause(other)
        assert refused.status_code == 412, other
        assert refused.json()["code"] == "outdated"
    for wrong in ("7", "", '"7', '"7" "8"'):
        assert pause(wrong).status_code == 422, wrong
    told = pause(f'"999", {tag}')
    assert told.status_code == 200
    assert told.headers["ETag"] == f'"{told.json()["decisions"]}"' != tag
    assert pause("*").status_code == 409


def test_devices_come_in_pages_and_are_narrowed(
    muster: Muster, people: dict[str, Client], number: int, device_ids: list[str]
) -> None:
    ann, path = people["ann"], f"/rollouts/{number}/devices"
    assert "deployments" not in ann.get(f"/rollouts/{number}")
    everybody = list(ann.pages(path, limit=5))
    assert sorted(part["device_id"] for part in everybody) == device_ids
    canaries = list(ann.pages(path, stage=1, limit=2))
    assert canaries == everybody[:3]
    assert all(part["ordered_at_s"] is not None for part in canaries)
    assert list(ann.pages(path, stage=2, state="QUEUED", limit=4)) == everybody[3:]
    assert list(ann.pages(path, state=["SUCCEEDED", "FAILED"])) == []
    assert list(ann.pages(path, restore_state="QUEUED")) == []
    with pytest.raises(InvalidInput, match="no stage 3"):
        ann.get(path, stage=3)
    printed = muster(ann, "rollout", "devices", str(number), "--state", "QUEUED", "--stage", "1")
    assert all(part["device_id"] in printed for part in canaries)
    assert everybody[3]["device_id"] not in printed


def test_it_is_explained_who_holds_it_up(
    muster: Muster, people: dict[str, Client], number: int, device_ids: list[str]
) -> None:
    told = people["vic"].get(f"/rollouts/{number}/explanation")
    assert told["why"] == "Stage 1 of 2 (canary) waits for 3 of 3 devices to end their deployment."
    (group,) = told["held_up_by"]
    assert (group["reason"], group["devices"]) == ("offline", 3)
    assert {one["device_id"] for one in group["examples"]} <= set(device_ids)
    printed = muster(people["vic"], "rollout", "explain", str(number))
    assert "3 devices offline" in printed
    assert f"muster rollout abort {number} --rollback" in printed


def test_an_answer_at_the_terminal_counts_only_for_what_was_shown(
    hub: HubProcess, people: dict[str, Client], number: int
) -> None:
    ann, ben = people["ann"], people["ben"]
    terminal = Terminal(hub, ann, "rollout", "abort", str(number))
    terminal.shows("and leave the version where it runs?")
    ben.post(f"/rollouts/{number}/pause", {"reason": "I look at it"})
    terminal.types("y")
    code, shown = terminal.ended()
    assert code == 1
    assert "Decided since you looked: Paused by ops-ben: I look at it" in " ".join(shown.split())
    assert ann.get(f"/rollouts/{number}")["status"] == "PAUSED"
    terminal = Terminal(hub, ann, "rollout", "abort", str(number))
    terminal.shows("[y/N]")
    terminal.types("y")
    assert terminal.ended()[0] == 0
    assert ann.get(f"/rollouts/{number}")["status"] in {"ROLLING_BACK", "ABORTED"}


def test_watching_draws_on_a_terminal_and_ends_on_an_interrupt_without_a_traceback(
    hub: HubProcess, people: dict[str, Client], number: int
) -> None:
    ann = people["ann"]
    terminal = Terminal(hub, ann, "rollout", "watch", str(number))
    terminal.shows("0 of 3 ended")
    ann.post(f"/rollouts/{number}/pause", {"reason": "for the picture"})
    terminal.shows("Paused by ops-ann: for the picture")
    terminal.process.send_signal(signal.SIGINT)
    code, shown = terminal.ended()
    assert code == 130
    assert "Traceback" not in shown
    assert f"Rollout {number} goes on" in shown


def test_watching_prints_lines_where_there_is_no_terminal(
    hub: HubProcess, people: dict[str, Client], number: int, tmp_path: Path
) -> None:
    ann, printed = people["ann"], tmp_path / "printed"
    with printed.open("wb") as stream:
        watching = subprocess.Popen(
            [sys.executable, "-m", "hub", "rollout", "watch", str(number)],
            env=environment(hub, ann),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "Started by ops-ann." in printed.read_text(), "it prints", timeout_s=30.0)
        ann.post(f"/rollouts/{number}/abort", {"reason": "enough"})
        eventually(lambda: "Aborted by ops-ann: enough" in printed.read_text(), "it goes on", timeout_s=30.0)
    finally:
        watching.kill()
        watching.wait(10.0)
    assert "\x1b" not in printed.read_text()
