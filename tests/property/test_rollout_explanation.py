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
from fleet.rollout.events import Abort, Approve, Event, Pause, Promote, Resume, Revoke
from fleet.rollout.explanation import groups
from fleet.rollout.explanation.explanation import explain
from fleet.rollout.explanation.groups import NAMED, concerned
from fleet.rollout.explanation.reasons import Facts, Reason
from fleet.rollout.plans.plan import Plan, Retries
from fleet.rollout.state.rollout import Rollout, Status
from hub.cli.app import app
from tests.support.rollouts import Campaign, plan

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
    return (
        sum(group.devices for group in explanation.held_up_by if group.reason is not Reason.GOING_BACK),
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
