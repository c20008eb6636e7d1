"""Explanations of rollouts: every device is told once, whatever was looked at; every command is accepted."""

from __future__ import annotations

import shlex
from contextlib import suppress

import msgspec
import pytest
import typer.main
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.core import TyperGroup

from fleet.protocol.deployment import PROGRESS, DeploymentState
from fleet.protocol.errors import Cause, Conflict
from fleet.protocol.maintenance import Day, Maintenance
from fleet.rollout.events import Abort, Approve, Event, EvidenceObserved, Pause, Promote, Resume, Revoke
from fleet.rollout.explanation import groups
from fleet.rollout.explanation.explanation import Explanation, explain
from fleet.rollout.explanation.groups import NAMED, concerned
from fleet.rollout.explanation.reasons import Facts, Reason
from fleet.rollout.gates.gate import Outcome
from fleet.rollout.plans.plan import Plan, Retries
from fleet.rollout.state.rollout import Rollout, Status
from hub.cli.app import app
from hub.cli.rollout_explain import print_explanation
from tests.support.rollouts import NEW, OLD, Campaign, plan, window

ENDED_BADLY = {
    DeploymentState.TIMED_OUT: Reason.TIMED_OUT,
    DeploymentState.FAILED: Reason.FAILED,
    DeploymentState.REJECTED: Reason.REFUSED,
    DeploymentState.ROLLED_BACK: Reason.ROLLED_BACK,
}
EVENTS: list[Event] = [
    Pause("ann", "lunch"),
    Resume("ann"),
    Promote("ann", "seen"),
    Abort("ann", "wrong model", roll_back=False),
    Abort("ann", "wrong model", roll_back=True),
    Approve("bob"),
]


def limited(concurrency: int | None, *, approval: bool) -> Plan:
    """Return a plan of two stages with retries and, if asked, an approval before the second."""
    made = plan("50%", "all", maximum_failed_share=0.9)
    stages = (made.stages[0], msgspec.structs.replace(made.stages[1], approval=approval))
    return msgspec.structs.replace(
        made, stages=stages, concurrency=concurrency, retries=Retries(attempts=1, backoff_s=30.0)
    )


def told(rollout: Rollout, now_s: float, offline: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Return how many devices the explanation tells of as under way, and as not following."""
    facts = {name: Facts(is_online=name not in offline, last_seen_s=0.0) for name in concerned(rollout)}
    explanation = explain(rollout, facts, now_s)
    for group in (*explanation.held_up_by, *explanation.not_following):
        assert len(group.examples) <= min(NAMED, group.devices)
        assert group.examples or len(rollout.deployments) > groups.LOOKED_AT
    there = sum(g.devices for g in explanation.held_up_by if g.reason is Reason.OFFLINE)
    assert there <= len(offline)
    beside = {Reason.GOING_BACK, Reason.SILENT_CANARY, Reason.SILENT_CONTROL}
    return (
        sum(group.devices for group in explanation.held_up_by if group.reason not in beside),
        sum(group.devices for group in explanation.not_following),
    )


@settings(max_examples=60)
@given(
    data=st.data(),
    concurrency=st.sampled_from([None, 3]),
    approval=st.booleans(),
    looked_at=st.sampled_from([2, 500]),
)
def test_every_device_is_told_once(
    data: st.DataObject, concurrency: int | None, *, approval: bool, looked_at: int
) -> None:
    campaign = Campaign(limited(concurrency, approval=approval), devices={f"cam-{i}": 1 for i in range(20)})
    for _ in range(data.draw(st.integers(0, 25))):
        parts = [d for d in campaign.rollout.deployments if d.attempt.is_open]
        if parts and bool(data.draw(st.integers(0, 5))):
            state = data.draw(st.sampled_from([*PROGRESS, DeploymentState.SUCCEEDED, *ENDED_BADLY]))
            campaign.report(
                data.draw(st.sampled_from(parts)), state, cause=Cause("delivery_timed_out", "Nothing came.")
            )
        elif not data.draw(st.integers(0, 3)):
            with suppress(Conflict):
                campaign.do(data.draw(st.sampled_from(EVENTS)))
        else:
            campaign.wait(data.draw(st.sampled_from([1.0, 40.0])))
    rollout = campaign.rollout
    begun = [d for d in rollout.deployments if d.stage <= rollout.stage_index]
    if rollout.status is Status.ROLLING_BACK:
        expected = sum(d.restore is not None and not d.restore.state.is_terminal for d in begun)
    else:
        expected = sum(not d.attempt.state.is_terminal for d in begun)
    if rollout.status.is_final:
        expected = 0
    bad = sum(d.attempt.state in ENDED_BADLY for d in rollout.deployments)
    offline = frozenset(d.device_id for d in begun[::3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "LOOKED_AT", looked_at)
        assert told(rollout, campaign.now_s) == (expected, bad)
        assert told(rollout, campaign.now_s, offline) == (expected, bad)


def test_who_is_offline_or_waits_for_a_window_is_named() -> None:
    night = Maintenance(days=tuple(Day), from_="00:00", to="24:00")
    campaign = Campaign(msgspec.structs.replace(plan("50%", "all"), maintenance=night))
    first, second, third, fourth = campaign.cohort(0)
    campaign.report(second, DeploymentState.STAGED)
    campaign.report(third, DeploymentState.TRIAL)
    campaign.wait(40.0)
    facts = {
        first.device_id: Facts(is_online=False, last_seen_s=campaign.now_s - 7200.0),
        second.device_id: Facts(is_online=True),
        third.device_id: Facts(is_online=True),
        fourth.device_id: Facts(is_online=True, is_held=True),
    }
    explanation = explain(campaign.rollout, facts, campaign.now_s)
    found = {g.reason: (g.devices, g.examples[0]) for g in explanation.held_up_by}
    assert {reason: example.device_id for reason, (_, example) in found.items()} == {
        Reason.OFFLINE: first.device_id,
        Reason.WINDOW: second.device_id,
        Reason.TRIAL: third.device_id,
        Reason.HELD: fourth.device_id,
    }
    assert found[Reason.OFFLINE][1].detail == "last heard of 2 h ago, runs out of time in 60 s"
    assert explanation.why == "Stage 1 of 2 waits for 4 of 4 devices to end their deployment."


HELD = "Updates are held on the device: surgery."
OPENS = "The rollout's next maintenance window opens on Monday, 2026-11-23 at 02:00."


def test_devices_that_are_ready_are_grouped_by_what_they_say_they_wait_for() -> None:
    night = Maintenance(days=(Day.MON, Day.TUE), from_="02:00", to="04:30")
    campaign = Campaign(
        msgspec.structs.replace(plan("all"), maintenance=night, deployment_timeout_s=7 * 86400.0),
        devices={f"cam-{i}": 1 for i in range(20)},
    )
    parts = campaign.cohort(0)
    for part in parts[:-1]:
        campaign.report(part, DeploymentState.STAGED)
    said = [
        HELD,
        *[OPENS] * 5,
        *["The program said no."] * 2,
        *(f"The battery is at {n} %." for n in range(9)),
    ]
    facts = {
        part.device_id: Facts(is_online=True, waits_for=sentence, waits_in=part.attempt.deployment_id)
        for part, sentence in zip(parts, said, strict=False)
    }
    downloads, before, silent = parts[-1], parts[-2], parts[-3]
    facts[downloads.device_id] = Facts(
        is_online=True, waits_for=OPENS, waits_in=downloads.attempt.deployment_id
    )
    facts[before.device_id] = Facts(is_online=True, waits_for=HELD, waits_in="r0-1f")
    assert silent.device_id not in facts
    explanation = explain(campaign.rollout, facts, campaign.now_s)
    found = {group.said: group for group in explanation.held_up_by}
    assert sum(group.devices for group in found.values()) == len(parts)
    assert found[f"ready, and waiting: {OPENS}"].devices == 5
    (held,) = found[f"ready, and waiting: {HELD}"].examples
    assert (held.device_id, held.detail) == (parts[0].device_id, "STAGED for 0 s, runs out of time in 7 d")
    others = found["ready, and waiting, each for something else"]
    assert (others.reason, others.devices) == (Reason.WAITS, 7)
    assert others.examples[0].detail.startswith("The battery is at 2 %. STAGED for")
    assert found["ready, and waiting for the maintenance window"].devices == 2
    assert found["ordered, without an answer so far"].devices == 1
    assert "Devices swap it in on mon, tue, 02:00 to 04:30 on their own clocks." in explanation.goes_on


def test_what_a_device_waits_for_on_its_way_back_is_told() -> None:
    campaign = Campaign(plan("all"))
    for part in campaign.cohort(0):
        campaign.report(part, DeploymentState.SUCCEEDED)
    campaign.do(Abort("ann", "wrong", roll_back=True))
    part = campaign.rollout.deployments[0]
    assert part.restore is not None
    campaign.report(part, DeploymentState.STAGED, back=True)
    facts = {
        part.device_id: Facts(is_online=True, waits_for=HELD, waits_in=part.restore.deployment_id),
    }
    groups = explain(campaign.rollout, facts, campaign.now_s).held_up_by
    assert [(g.devices, g.said) for g in groups if g.reason is Reason.WAITS] == [
        (1, f"ready, and waiting: {HELD}")
    ]


def silent_groups(explanation: Explanation) -> dict[Reason, tuple[int, list[tuple[str, str]]]]:
    return {
        group.reason: (group.devices, [(one.device_id, one.detail) for one in group.examples])
        for group in explanation.held_up_by
        if group.reason in {Reason.SILENT_CANARY, Reason.SILENT_CONTROL}
    }


def test_a_gate_without_evidence_names_who_is_silent() -> None:
    campaign = Campaign(plan("75%", "all"))
    canaries = campaign.cohort(0)
    for part in canaries:
        campaign.report(part, DeploymentState.SUCCEEDED)
    controls = [d for d in campaign.rollout.deployments if d.stage == 1]
    campaign.wait(20.0)
    started_s = campaign.now_s
    campaign.wait(20.0)
    heard = tuple((part.device_id, window(NEW, started_s)) for part in canaries[:-1])
    campaign.do(EvidenceObserved(heard))
    campaign.wait(10.0)
    last_seen_s = campaign.now_s - 14_400.0
    facts = {part.device_id: Facts(is_online=False, last_seen_s=last_seen_s) for part in controls}
    facts[canaries[-1].device_id] = Facts(is_online=True, last_seen_s=campaign.now_s - 4.0)
    assert set(facts) == set(concerned(campaign.rollout))
    explanation = explain(campaign.rollout, facts, campaign.now_s)
    assert silent_groups(explanation) == {
        Reason.SILENT_CANARY: (1, [(canaries[-1].device_id, "connected, last heard of 4 s ago")]),
        Reason.SILENT_CONTROL: (
            2,
            [(part.device_id, "offline, last heard of 4 h ago") for part in controls],
        ),
    }
    needs = "The gate hears more of the controls: so far 0 of 2 sent telemetry in this stage."
    assert needs in explanation.goes_on
    assert not any("more of the canaries" in line for line in explanation.goes_on)

    campaign.do(EvidenceObserved(((controls[0].device_id, window(OLD, campaign.now_s, predictions=20)),)))
    campaign.wait(10.0)
    explanation = explain(campaign.rollout, facts, campaign.now_s)
    assert silent_groups(explanation)[Reason.SILENT_CONTROL] == (
        1,
        [(controls[1].device_id, "offline, last heard of 4 h ago")],
    )
    assert "The gate hears more of the controls: so far 1 of 2 sent telemetry in this stage." in (
        explanation.goes_on
    )

    campaign.do(Revoke("Version 2 was revoked."))
    assert not silent_groups(explain(campaign.rollout, facts, campaign.now_s))


def test_nobody_is_called_silent_while_deployments_are_open() -> None:
    campaign = Campaign(plan("75%", "all"))
    first, *others = campaign.cohort(0)
    for part in others:
        campaign.report(part, DeploymentState.SUCCEEDED)
    campaign.wait(20.0)
    assert campaign.verdict().outcome is Outcome.INCONCLUSIVE
    assert not silent_groups(explain(campaign.rollout, {}, campaign.now_s))
    campaign.report(first, DeploymentState.SUCCEEDED)
    assert set(silent_groups(explain(campaign.rollout, {}, campaign.now_s))) == {
        Reason.SILENT_CANARY,
        Reason.SILENT_CONTROL,
    }


def test_failures_are_grouped_by_cause() -> None:
    campaign = Campaign(plan("all", maximum_failed_share=0.9))
    *failed, last = campaign.cohort(0)
    for part in failed:
        campaign.report(part, DeploymentState.REJECTED, cause=Cause("no_space", "It needs 9 bytes."))
    campaign.report(last, DeploymentState.ROLLED_BACK, cause=Cause("trial_crashed", "It crashed."))
    groups = explain(campaign.rollout, {}, campaign.now_s).not_following
    assert [(g.reason, g.code, g.devices) for g in groups] == [
        (Reason.REFUSED, "no_space", 7),
        (Reason.ROLLED_BACK, "trial_crashed", 1),
    ]


def test_who_is_not_back_is_told_of_a_rollout_that_succeeded_without_them() -> None:
    campaign = Campaign(plan("all", maximum_failed_share=0.9))
    lost, *rest = campaign.cohort(0)
    campaign.report(lost, DeploymentState.ROLLED_BACK, cause=Cause("trial_crashed", "It crashed."))
    campaign.report(lost, DeploymentState.REJECTED, back=True, cause=Cause("version_revoked", "It leaks."))
    for part in rest:
        campaign.report(part, DeploymentState.SUCCEEDED)
    campaign.do(Promote("ann", "seen"))
    assert campaign.status() is Status.SUCCEEDED
    told = f"Not back on what they ran before: {lost.device_id} (REJECTED). It leaks."
    assert campaign.cause().detail.endswith(told)
    assert campaign.rollout.history[-1].text.endswith(told)
    explanation = explain(campaign.rollout, {}, campaign.now_s)
    assert explanation.why.count(told) == 1
    (helps,) = (choice.command for choice in explanation.choices if "--to VERSION" in choice.command)
    assert lost.device_id in helps


WANTED = {
    "created": {"start", "abort"},
    "running": {"pause", "promote", "abort", "devices"},
    "paused": {"resume", "promote", "abort", "devices"},
    "waiting": {"approve", "pause", "abort", "devices"},
    "taken back": {"devices"},
    "revoked": {"abort", "devices"},
}


def situations() -> dict[str, Campaign]:
    """Return rollouts in every status that operators can act in."""
    found = {"created": Campaign(started=False), "running": Campaign()}
    found["paused"] = Campaign()
    found["paused"].do(Pause("ann", "lunch"))
    found["waiting"] = Campaign(limited(None, approval=True))
    found["waiting"].do(Promote("ann", "seen"))
    found["revoked"] = Campaign()
    found["revoked"].do(Revoke("Version 2 was revoked."))
    found["taken back"] = Campaign()
    found["taken back"].do(Abort("ann", "wrong", roll_back=True))
    return found


@pytest.mark.parametrize("name", WANTED)
def test_what_it_offers_the_engine_allows_and_the_command_line_understands(name: str) -> None:
    campaign = situations()[name]
    explanation = explain(campaign.rollout, {}, campaign.now_s)
    assert explanation.why and explanation.goes_on
    for choice in explanation.choices:
        command = typer.main.get_command(app)
        assert isinstance(command, TyperGroup)
        words = shlex.split(choice.command)
        assert words[:2] == ["muster", "rollout"]
        rollout = command.commands["rollout"]
        assert isinstance(rollout, TyperGroup)
        rollout.commands[words[2]].make_context(words[2], words[3:])
    said = {shlex.split(choice.command)[2] for choice in explanation.choices}
    assert said == WANTED[name]


def test_one_device_gets_its_order_and_two_get_theirs() -> None:
    for concurrency, said in ((1, "2 devices get their order"), (2, "1 device gets its order")):
        campaign = Campaign(
            msgspec.structs.replace(plan("75%", "all"), concurrency=concurrency),
            devices={f"cam-{i}": 1 for i in range(4)},
        )
        goes_on = explain(campaign.rollout, {}, campaign.now_s).goes_on
        assert any(sentence.startswith(said) for sentence in goes_on), goes_on


def effects(campaign: Campaign) -> dict[str, str]:
    """Return what each choice does, by the words after the rollout's number."""
    choices = explain(campaign.rollout, {}, campaign.now_s).choices
    return {choice.command.removeprefix("muster rollout "): choice.effect for choice in choices}


def test_devices_of_earlier_stages_that_are_open_are_told_apart() -> None:
    campaign = Campaign(plan("50%", "75%", "all"))
    campaign.do(Promote("ann", "seen"))
    assert explain(campaign.rollout, {}, campaign.now_s).why == (
        "Stage 2 of 3 waits for 2 of 2 devices to end their deployment; "
        "4 devices of earlier stages are open as well."
    )
    campaign.do(Promote("ann", "seen"))
    campaign.succeed(1)
    first, *_ = campaign.cohort(2)
    campaign.report(first, DeploymentState.SUCCEEDED)
    assert explain(campaign.rollout, {}, campaign.now_s).why == (
        "Stage 3 of 3 waits for 1 of 2 devices to end its deployment; "
        "4 devices of earlier stages are open as well."
    )
    campaign.do(Promote("ann", "seen"))
    campaign.succeed(2)
    said = explain(campaign.rollout, {}, campaign.now_s).why
    assert said == "Stage 3 of 3 has ended. 4 devices of earlier stages have not ended."


def test_the_next_that_runs_out_of_time_is_one_that_is_open() -> None:
    campaign = Campaign(msgspec.structs.replace(plan("all"), devices_per_minute=6.0))
    early = [d for d in campaign.rollout.deployments if d.attempt.is_open]
    campaign.wait(40.0)
    for part in early:
        campaign.report(part, DeploymentState.SUCCEEDED)
    parts = [d for d in campaign.rollout.deployments if d.attempt.is_open]
    assert early and parts
    least = min(d.due_s for d in parts if d.due_s is not None)
    known = campaign.rollout.next_due_s
    assert known is not None and known < least
    left = f"{least - campaign.now_s:.0f} s"
    goes_on = explain(campaign.rollout, {}, campaign.now_s).goes_on
    assert f"The next of them runs out of time, or is tried again, in {left}." in goes_on


def test_who_was_not_ordered_a_version_that_is_revoked_waits_for_no_order() -> None:
    slow = msgspec.structs.replace(plan("50%", "all"), devices_per_minute=1.0)
    campaign = Campaign(slow)
    ordered = [part for part in campaign.cohort(0) if part.attempt.is_open]
    assert 0 < len(ordered) < len(campaign.cohort(0))
    assert Reason.PACE in {group.reason for group in explain(campaign.rollout, {}, 0.0).held_up_by}
    campaign.do(Revoke("Version 2 was revoked."))
    found = {group.reason: group.devices for group in explain(campaign.rollout, {}, 0.0).held_up_by}
    assert found == {Reason.GOING_BACK: len(ordered)}


def test_an_abort_takes_back_only_who_was_not_sent_back_already() -> None:
    assert effects(Campaign(started=False))["abort 7"] == "ends it before it began"
    campaign = Campaign(plan("50%", "all"))
    first, *_ = campaign.cohort(0)
    campaign.report(first, DeploymentState.SUCCEEDED)
    assert effects(campaign)["abort 7 --rollback"] == "ends it and takes it back from 4 devices"
    campaign.do(Revoke("Version 2 was revoked."))
    assert effects(campaign)["abort 7 --rollback"] == "ends it and takes it back from 1 device"
    told = explain(campaign.rollout, {}, campaign.now_s)
    assert told.why.endswith(" It never goes forward again.")
    assert told.goes_on[0] == "3 devices on their way to the version go back, or run out of time."
    assert told.goes_on[-1] == "Somebody ends it."
    before = sum(d.restore is not None for d in campaign.rollout.deployments)
    campaign.do(Abort("ann", "wrong", roll_back=True))
    assert sum(d.restore is not None for d in campaign.rollout.deployments) == before + 1


def test_it_is_said_when_a_pass_counts_and_that_there_is_one() -> None:
    campaign = Campaign(plan("50%", "all", minimum_bake_s=30.0, maximum_bake_s=600.0))
    said = "The gate says PASS, in 30 s at the earliest, counted from when the last of them ends."
    assert said in explain(campaign.rollout, {}, campaign.now_s).goes_on
    campaign.succeed(0)
    said = "The gate says PASS, in 30 s at the earliest."
    assert said in explain(campaign.rollout, {}, campaign.now_s).goes_on
    campaign.observe(rounds=10)
    assert campaign.verdict().outcome is Outcome.PASS
    said = "The gate says PASS already; the least time to bake is over in 10 s at the earliest."
    assert said in explain(campaign.rollout, {}, campaign.now_s).goes_on


def test_how_many_devices_are_to_run_the_version_is_a_condition() -> None:
    made = plan("50%", "all")
    first = msgspec.structs.replace(made.stages[0], minimum_devices=2)
    campaign = Campaign(msgspec.structs.replace(made, stages=(first, made.stages[1])))
    campaign.report(campaign.cohort(0)[0], DeploymentState.SUCCEEDED)
    said = "At least 2 devices of the stage run the version; 1 does."
    assert said in explain(campaign.rollout, {}, campaign.now_s).goes_on


def test_a_promoted_stage_without_evidence_has_no_word_of_the_gate() -> None:
    campaign = Campaign(plan("all"))
    told = explain(campaign.rollout, {}, campaign.now_s)
    assert told.verdict and told.verdict_stage == 1
    campaign.do(Promote("ann", "seen"))
    campaign.succeed(0)
    assert campaign.status() is Status.SUCCEEDED
    told = explain(campaign.rollout, {}, campaign.now_s)
    assert (told.verdict, told.verdict_stage) == ("", None)


def test_the_word_of_the_gate_names_its_stage_and_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    campaign = Campaign(limited(None, approval=True))
    campaign.succeed(0)
    campaign.observe(rounds=10)
    assert campaign.rollout.awaits_since_s is not None
    print_explanation(msgspec.to_builtins(explain(campaign.rollout, {}, campaign.now_s)))
    assert "The gate says of stage 1: PASS" in capsys.readouterr().out
    campaign.do(Abort("ann", "wrong", roll_back=True))
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK
    print_explanation(msgspec.to_builtins(explain(campaign.rollout, {}, campaign.now_s)))
    assert "The gate said of stage 1: PASS" in capsys.readouterr().out
