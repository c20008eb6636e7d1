"""Whole simulated rollouts: what holds however the fleet behaves, and that gates decide as they ought to."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.plans.plan import Membership, OnFail, Plan
from fleet.rollout.state.rollout import Status
from fleet.sentences import duration
from hub.plan_file import read_plan
from hub.simulation.keeping import InStore
from hub.simulation.outcome import Judgement, Outcome, Report
from hub.simulation.ready import READY
from hub.simulation.report import drawn
from hub.simulation.rollout import SimulatedRollout
from hub.simulation.scenario import (
    Absence,
    Action,
    At,
    Clocks,
    Deed,
    Failure,
    Fleet,
    Harm,
    Joining,
    Offline,
    Pattern,
    Reports,
    Scenario,
    Telemetry,
    Version,
)
from hub.simulation.scenario import Outcome as Ending
from hub.store.sqlite import SqliteStore
from tests.support import thoroughness
from tests.support.waiting import eventually

PLAN = """
membership: continuous
stages:
  - {devices: 20%, minimum_bake_s: 60, maximum_bake_s: 3600}
  - {devices: all, minimum_bake_s: 60, maximum_bake_s: 3600}
gate:
  error_budget: 0.02
  maximum_failed_share: 0.3
  metrics: [{metric: inference_errors, margin: 0.02, limit: 0.03}]
devices_per_minute: 600
retries: {attempts: 1, backoff_s: 60}
deployment_timeout_s: 900
"""
TOLD = Telemetry(window_s=120.0, requests=200.0)
CALM = Scenario(
    fleet=Fleet(devices=60), version=Version(failures=()), telemetry=TOLD, tick_s=20.0, waits_s=600.0
)
SHARES = st.sampled_from([0.0, 0.0, 0.1, 0.3])


def plan(**fields: Any) -> Plan:
    return msgspec.structs.replace(read_plan(PLAN)[0], **fields)


def simulated(scenario: Scenario, seed: int = 1, **fields: Any) -> Outcome:
    return SimulatedRollout(plan(**fields), scenario, seed=seed).run()


def changed(scenario: Scenario, **fields: Any) -> Scenario:
    return msgspec.structs.replace(scenario, **fields)


@given(
    offline=SHARES,
    days=SHARES,
    flapping=SHARES,
    clocks=SHARES,
    joining=SHARES,
    fresh=SHARES,
    failing=SHARES,
    reports=st.builds(Reports, lost=SHARES, doubled=SHARES, late=SHARES),
    harm=st.sampled_from([0.0, 0.2]),
    away=st.lists(st.sampled_from([Absence(at_s=100.0, duration_s=2000.0)]), max_size=1),
    deeds=st.lists(st.tuples(st.integers(1, 1500), st.sampled_from(Action)), max_size=3),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=100 if thoroughness.ALL else 5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_every_device_is_accounted_for_however_the_fleet_behaves(  # noqa: PLR0917 - hypothesis draws them
    offline: float,
    days: float,
    flapping: float,
    clocks: float,
    joining: float,
    fresh: float,
    failing: float,
    reports: Reports,
    harm: float,
    away: list[Absence],
    deeds: list[tuple[int, Action]],
    seed: int,
) -> None:
    scenario = changed(
        CALM,
        fleet=Fleet(
            devices=40,
            fresh_share=fresh,
            offline=Offline(share=offline),
            days=Pattern(share=days, period_s=3600.0, up_share=0.4),
            flapping=Pattern(share=flapping, period_s=120.0, up_share=0.5),
            clocks=Clocks(share=clocks, off_s=86400.0),
            joining=Joining(share=joining, over_s=600.0),
        ),
        version=Version(failures=(Failure(share=failing),)),
        reports=reports,
        harm=(Harm(errors=harm),) if harm else (),
        hub_away=tuple(away),
        operators=tuple(Deed(at_s=float(at_s), action=action) for at_s, action in sorted(deeds)),
    )
    outcome = simulated(scenario, seed)
    assert outcome.status.is_final or outcome.status is Status.PAUSED, "it never ends"
    assert outcome.unaccounted == 0
    assert sum(outcome.counts.values()) == outcome.devices <= 40
    assert outcome.harmed_before_stop <= outcome.harmed <= outcome.got_it <= outcome.devices
    assert outcome.orders <= outcome.devices * 3, "retries are bounded, and so are ways back"
    if outcome.status is Status.ROLLED_BACK:
        assert outcome.not_back == 0
    if outcome.judgement is Judgement.RIGHT and not harm:
        assert outcome.status is Status.SUCCEEDED


@pytest.mark.parametrize("seed", range(2))
def test_a_harmless_version_reaches_everybody(seed: int) -> None:
    outcome = simulated(CALM, seed)
    assert (outcome.status, outcome.judgement) == (Status.SUCCEEDED, Judgement.RIGHT)
    assert outcome.counts == {"SUCCEEDED": 60}
    assert outcome.received_bytes == 60 * CALM.version.size_bytes
    assert outcome.orders == 60
    assert outcome.reports == 5 * 60  # one for each state on the way


@pytest.mark.parametrize(
    "harm", [Harm(errors=0.2), Harm(errors=0.4, where='hardware == "pi5"')], ids=["all", "one class"]
)
def test_a_harmful_version_is_led_back_before_it_reaches_everybody(harm: Harm) -> None:
    outcome = simulated(changed(CALM, harm=(harm,)))
    assert (outcome.status, outcome.judgement) == (Status.ROLLED_BACK, Judgement.RIGHT)
    assert outcome.stopped_s is not None
    assert 0 < outcome.harmed_before_stop <= outcome.got_it_before_stop <= 12
    assert "FAIL" in outcome.reason


@pytest.mark.parametrize(
    ("what", "judgement"),
    [
        ({"harm": (Harm(errors=0.2),)}, Judgement.RIGHT),
        ({"version": Version(failures=(Failure(share=1.0, at=At.TEST),))}, Judgement.FALSE_STOP),
    ],
    ids=["gate", "installs"],
)
def test_a_pause_for_harm_is_a_stop(what: dict[str, Any], judgement: Judgement) -> None:
    outcome = simulated(changed(CALM, **what), on_fail=OnFail.PAUSE)
    assert (outcome.status, outcome.judgement) == (Status.PAUSED, judgement)
    assert " FAIL: " in outcome.reason


def test_a_pause_without_a_verdict_is_no_stop_whatever_the_classes_of_devices_are_called() -> None:
    fleet = Fleet(devices=60, attributes={"hardware": {"pi4": 0.5, "FAILOVER": 0.5}})
    harm = (Harm(errors=0.025, where='hardware == "FAILOVER"'),)
    first, second = plan().stages
    stages = (msgspec.structs.replace(first, devices="50%", maximum_bake_s=900), second)
    outcome = simulated(changed(CALM, fleet=fleet, harm=harm), 0, stages=stages, stratify_by=("hardware",))
    assert (outcome.status, outcome.judgement) == (Status.PAUSED, Judgement.HELD)
    assert "hardware=FAILOVER" in outcome.reason


def test_a_refusal_before_the_trial_is_reported_and_nobody_runs_the_version() -> None:
    failing = (Failure(share=1.0, at=At.TEST, outcome=Ending.REJECTED, code="self_test_failed"),)
    outcome = simulated(changed(CALM, version=Version(failures=failing)))
    assert (outcome.status, outcome.got_it) == (Status.ROLLED_BACK, 0)
    assert outcome.counts["REJECTED"] > 0
    assert "ROLLED_BACK" not in outcome.counts
    assert "of the stage" in outcome.reason


def test_a_version_that_harms_nobody_whom_the_plan_means_need_not_be_stopped() -> None:
    harmful = changed(CALM, harm=(Harm(errors=0.4, where='hardware == "pi5"'),))
    outcome = simulated(harmful, target='hardware == "pi4"')
    assert (outcome.status, outcome.judgement) == (Status.SUCCEEDED, Judgement.RIGHT)
    assert (outcome.harmed, outcome.ought_to_stop) == (0, False)


def test_late_joiners_are_taken_in_and_a_snapshot_leaves_them_out() -> None:
    scenario = changed(CALM, fleet=Fleet(devices=60, joining=Joining(share=0.3, over_s=300.0)))
    taken = simulated(scenario)
    assert (taken.status, taken.devices) == (Status.SUCCEEDED, 60)
    left = simulated(scenario, membership=Membership.SNAPSHOT)
    assert left.status is Status.SUCCEEDED
    assert left.devices < 60


def test_late_joiners_make_no_stage_of_a_count_larger() -> None:
    scenario = changed(CALM, fleet=Fleet(devices=60, joining=Joining(share=0.9, over_s=300.0)), lasts_s=600.0)
    canary = msgspec.structs.replace(plan().stages[0], devices=1)
    rollout = SimulatedRollout(plan(stages=(canary, plan().stages[1])), scenario, seed=1)
    before = rollout.state.device_count
    sizes: list[int] = []
    rollout.run(look=lambda _: sizes.append(rollout.state.stage_sizes[0]))
    assert (before < 20, rollout.state.device_count, set(sizes)) == (True, 60, {1})


def test_who_is_away_for_good_does_not_hold_a_rollout_forever() -> None:
    scenario = changed(CALM, fleet=Fleet(devices=60, offline=Offline(share=0.1)))
    outcome = simulated(scenario)
    assert outcome.status is Status.FAILED or outcome.status is Status.SUCCEEDED
    assert outcome.counts["TIMED_OUT"] > 0
    assert outcome.duration_s < 6 * 3600.0


def test_clocks_that_are_wrong_make_no_false_stop() -> None:
    outcome = simulated(changed(CALM, fleet=Fleet(devices=60, clocks=Clocks(share=0.5, off_s=86400.0))))
    assert (outcome.status, outcome.judgement) == (Status.SUCCEEDED, Judgement.RIGHT)


def test_an_absence_of_the_hub_fails_nobody() -> None:
    outcome = simulated(changed(CALM, hub_away=(Absence(at_s=10.0, duration_s=5000.0),)))
    assert (outcome.status, outcome.counts) == (Status.SUCCEEDED, {"SUCCEEDED": 60})


def test_a_stage_that_nobody_approves_of_is_held_and_an_approval_lets_it_begin() -> None:
    first, second = plan().stages
    stages = (first, msgspec.structs.replace(second, approval=True))
    held = simulated(CALM, stages=stages)
    assert held.judgement is Judgement.HELD
    assert held.duration_s < CALM.waits_s, "that nobody came is not counted"
    assert [stage.took_s for stage in held.stages] == [held.duration_s]
    promoted = changed(CALM, operators=(Deed(at_s=120.0, action=Action.PROMOTE),))
    waiting = simulated(promoted, stages=stages)
    assert (waiting.status, waiting.judgement) == (Status.RUNNING, Judgement.HELD)
    assert waiting.stages[0].promoted
    approved = changed(CALM, operators=(Deed(at_s=1500.0, action=Action.APPROVE, by="bo"),))
    assert simulated(approved, stages=stages).status is Status.SUCCEEDED


def test_a_rollout_that_stays_paused_is_told_with_when_it_paused() -> None:
    paused = changed(CALM, operators=(Deed(at_s=20.0, action=Action.PAUSE),))
    first, second = plan().stages
    outcome = simulated(paused, stages=(msgspec.structs.replace(first, name="canary"), second))
    assert (outcome.status, outcome.judgement) == (Status.PAUSED, Judgement.HELD)
    assert 20.0 <= outcome.duration_s < 20.0 + 2 * CALM.tick_s
    assert outcome.stages[0].took_s == outcome.duration_s
    report = Report.of("calm", "", ought_to_stop=False, runs=[msgspec.structs.replace(outcome, orders=1)])
    printed = io.StringIO()
    Console(file=printed, width=200).print(drawn(report), markup=False)
    assert f"PAUSED after {duration(outcome.duration_s)}, held" in printed.getvalue()
    assert "1 canary" in printed.getvalue()
    assert "messages: 1 order, " in printed.getvalue()


def test_what_operators_may_not_do_is_noted() -> None:
    deeds = (
        Deed(at_s=10.0, action=Action.RESUME),
        Deed(at_s=20.0, action=Action.PAUSE),
        Deed(at_s=400.0, action=Action.ROLL_BACK, by="ana"),
    )
    outcome = simulated(changed(CALM, operators=deeds))
    assert (outcome.status, outcome.judgement) == (Status.ROLLED_BACK, Judgement.ENDED)
    assert len(outcome.refused) == 1
    assert outcome.refused[0].startswith("resume by operator: ")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": 'zone == "north"'}, "no device has the attribute 'zone'"),
        ({"target": 'site == "lyon" and not tag("lab")'}, 'asks for `tag."lab".`'),
        ({"target": "not online"}, "asks for `online`"),
        ({"target": 'site == "lyon"', "stratify_by": ()}, None),
    ],
    ids=["no such attribute", "tags", "a fact", "a site"],
)
def test_targets_ask_for_what_simulated_devices_have(fields: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert 0 < simulated(CALM, **fields).devices < 60
    else:
        with pytest.raises(InvalidPlan, match=message):
            simulated(CALM, **fields)


def test_the_store_keeps_what_the_engine_decided(tmp_path: Path) -> None:
    scenario = changed(CALM, fleet=Fleet(devices=20), harm=(Harm(errors=0.3),))
    run = SimulatedRollout(plan(), scenario, seed=1)
    with InStore(tmp_path / "hub", run.devices) as store:
        outcome = run.run(keeping=store)
    kept = SqliteStore(tmp_path / "hub" / "hub.db")
    try:
        state = kept.rollout(1).state
    finally:
        kept.close()
    assert state == run.state
    assert state.status is outcome.status is Status.ROLLED_BACK
    assert outcome == simulated(scenario)


def test_the_same_seed_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    scenario = changed(CALM, fleet=Fleet(devices=30, joining=Joining(share=0.2, over_s=300.0)))
    (tmp_path / "scenario.json").write_bytes(msgspec.json.encode(scenario))

    def answer(hash_seed: str) -> bytes:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "hub",
                "simulate",
                "plan.yaml",
                "--scenario",
                "scenario.json",
                "--seed",
                "7",
                "--runs",
                "2",
                "--json",
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout

    first = answer("1")
    assert answer("2") == first
    told = json.loads(first)
    assert told["judgements"] == {"right": 2}
    assert [run["seed"] for run in told["runs"]] == [7, 8]
    assert told["runs"][0]["history"] != told["runs"][1]["history"]


def test_every_ready_scenario_can_be_drawn() -> None:
    for scenario in READY.values():
        run = SimulatedRollout(plan(), scenario, seed=1, devices=10)
        assert len(run.state.deployments) > 0


def test_an_interrupt_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    process = subprocess.Popen(
        [sys.executable, "-m", "hub", "simulate", "plan.yaml", "--store", "kept", "--devices", "20000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        eventually((tmp_path / "kept" / "hub.db").exists, "the simulation has begun")
        process.send_signal(signal.SIGINT)
        answered, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in answered + said
