"""Approval by a second person: a stage that asks for it waits, and waiting holds progress, not protection."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict, NotPermitted
from fleet.rollout.engine import create
from fleet.rollout.events import Abort, Approve, Pause, Promote, Resume, Revoke, Start, WasAway
from fleet.rollout.plans.plan import OnFail, Plan
from fleet.rollout.state.rollout import Happening, Kind, Status
from tests.support.rollouts import DEVICES, NEW, Campaign, plan, restored, stored


def asking(*stages: int, on_fail: OnFail = OnFail.ROLL_BACK) -> Plan:
    """Return a plan of one, half, all whose stages of these numbers, from 0, ask for approval."""
    made = plan()
    return msgspec.structs.replace(
        made,
        on_fail=on_fail,
        stages=tuple(
            msgspec.structs.replace(stage, approval=number in stages, name=f"step-{number}")
            for number, stage in enumerate(made.stages)
        ),
    )


class Reviewed(Campaign):
    """A rollout that ann created."""

    def __init__(self, the_plan: Plan, *, start: bool = True) -> None:
        super().__init__(the_plan, started=False)
        self.rollout = create(
            number=7,
            kind=Kind.UPDATE,
            model="digits",
            version=2,
            manifest_sha256=NEW,
            plan=the_plan,
            seed=3,
            devices=dict(DEVICES),
            now_s=self.now_s,
            created_by="ann",
        )
        if start:
            self.do(Start("ben"))

    def pass_stage(self, number: int) -> None:
        """Let a stage's devices succeed and convince the gate."""
        self.succeed(number)
        self.observe(rounds=6)
        self.wait(60.0)

    def waits(self) -> bool:
        """Whether a stage waits for approval."""
        return self.rollout.awaits_since_s is not None


def test_a_stage_that_asks_waits_until_a_second_person_approves() -> None:
    campaign = Reviewed(asking(1))
    campaign.pass_stage(0)
    assert campaign.waits()
    assert (campaign.status(), campaign.rollout.stage_index) == (Status.RUNNING, 0)
    assert len(campaign.orders()) == 1
    said = [e.text for e in campaign.rollout.history if e.kind is Happening.APPROVAL_AWAITED]
    assert said == ["Stage 2 of 3 (step-1) waits for approval by a second person, who is not ann or ben."]
    campaign.do(Approve("cem", "looks well"))
    assert not campaign.waits()
    assert campaign.rollout.stage_index == 1
    assert len(campaign.orders()) == 4
    said = [e.text for e in campaign.rollout.history if e.kind is Happening.APPROVED]
    assert said == ["Stage 2 of 3 (step-1) approved by cem: looks well."]
    assert restored(stored(campaign.rollout)) == campaign.rollout


@pytest.mark.parametrize("by", ["ann", "ben"])
def test_who_created_or_started_it_cannot_approve(by: str) -> None:
    campaign = Reviewed(asking(1))
    campaign.pass_stage(0)
    before = campaign.rollout
    with pytest.raises(NotPermitted, match=by):
        campaign.do(Approve(by))
    assert campaign.rollout is before


def test_who_promoted_a_stage_cannot_approve_of_the_next() -> None:
    campaign = Reviewed(asking(1))
    campaign.do(Promote("cem", "urgent"))
    assert campaign.waits()
    with pytest.raises(NotPermitted):
        campaign.do(Approve("cem"))
    campaign.do(Approve("dee"))
    assert campaign.rollout.stage_index == 1


def test_the_first_stage_can_ask_too_and_nothing_is_sent_before() -> None:
    campaign = Reviewed(asking(0))
    assert campaign.waits()
    assert campaign.orders() == []
    campaign.observe(rounds=2)
    campaign.do(WasAway(100.0))
    campaign.wait(1e6)
    assert (campaign.status(), campaign.orders()) == (Status.RUNNING, [])
    with pytest.raises(Conflict, match="A promotion does not replace that"):
        campaign.do(Promote("cem", "urgent"))
    campaign.do(Approve("cem"))
    assert campaign.rollout.stage_index == 0
    assert len(campaign.orders()) == 1


def test_waiting_costs_no_deadline() -> None:
    campaign = Reviewed(asking(2))
    campaign.pass_stage(0)
    campaign.pass_stage(1)
    campaign.wait(1e7)
    assert (campaign.status(), campaign.waits()) == (Status.RUNNING, True)
    campaign.do(Approve("cem"))
    assert all(d.due_s is not None and d.due_s > campaign.now_s for d in campaign.cohort(2))
    campaign.pass_stage(2)
    assert campaign.status() is Status.SUCCEEDED


def test_an_approval_that_names_a_stage_is_of_no_other() -> None:
    campaign = Reviewed(asking(1, 2))
    campaign.pass_stage(0)
    with pytest.raises(Conflict, match=r"turn of stage 2, not 3\. Look again"):
        campaign.do(Approve("cem", stage=3))
    campaign.do(Approve("cem", " looks\nwell ", stage=2))
    assert campaign.rollout.approvals[-1].reason == "looks well"
    with pytest.raises(Conflict, match="cem approved of stage 2"):
        campaign.do(Approve("dee", stage=2))
    campaign.pass_stage(1)
    assert campaign.waits()
    with pytest.raises(Conflict, match=r"turn of stage 3, not 2\. Decided since"):
        campaign.do(Approve("dee", stage=2))
    campaign.do(Approve("dee", stage=3))
    assert campaign.rollout.stage_index == 2


def test_promoting_does_not_skip_approval() -> None:
    campaign = Reviewed(asking(1))
    campaign.do(Promote("ann", "urgent"))
    with pytest.raises(Conflict, match="Stage 2 of rollout 7 waits for approval"):
        campaign.do(Promote("ann", "urgent"))
    assert campaign.rollout.stage_index == 0


def test_it_can_be_paused_resumed_and_approved_while_it_waits() -> None:
    campaign = Reviewed(asking(1))
    campaign.pass_stage(0)
    campaign.do(Pause("ann", "lunch"))
    assert campaign.waits()
    campaign.do(Resume("ann"))
    assert campaign.waits()
    campaign.do(Pause("ann", "lunch"))
    campaign.do(Approve("cem"))
    assert (campaign.status(), campaign.rollout.stage_index) == (Status.PAUSED, 0)
    campaign.do(Resume("ann"))
    assert campaign.rollout.stage_index == 1


@pytest.mark.parametrize("roll_back", [False, True])
def test_aborting_ends_the_waiting(roll_back: bool) -> None:
    campaign = Reviewed(asking(1))
    campaign.pass_stage(0)
    campaign.do(Abort("ann", "wrong model", roll_back=roll_back))
    assert not campaign.waits()
    campaign.restore_all()
    assert campaign.status() is (Status.ROLLED_BACK if roll_back else Status.ABORTED)


def test_harm_that_shows_while_it_waits_is_taken_back() -> None:
    campaign = Reviewed(asking(1))
    campaign.do(Promote("ann", "urgent"))
    campaign.succeed(0)
    campaign.observe(canary_wrong=140, rounds=3)
    assert campaign.status() is Status.ROLLING_BACK
    assert not campaign.waits()


def test_harm_that_pauses_while_it_waits_can_be_let_be_and_approval_is_still_needed() -> None:
    campaign = Reviewed(asking(1, on_fail=OnFail.PAUSE))
    campaign.pass_stage(0)
    campaign.observe(canary_wrong=200, rounds=60)
    assert campaign.status() is Status.PAUSED
    campaign.do(Resume("ann"))
    assert campaign.status() is Status.PAUSED, "resuming does not hide it"
    campaign.do(Promote("ann", "a better one is worse by this measure"))
    assert (campaign.status(), campaign.waits()) == (Status.RUNNING, True)
    campaign.observe(canary_wrong=200)
    assert campaign.status() is Status.RUNNING
    campaign.do(Approve("cem"))
    assert campaign.rollout.stage_index == 1


def test_harm_that_shows_between_an_approval_in_a_pause_and_the_resumption_is_taken_back() -> None:
    campaign = Reviewed(asking(1))
    campaign.pass_stage(0)
    campaign.do(Pause("ben", "lunch"))
    campaign.do(Approve("cem"))
    campaign.observe(canary_wrong=200, rounds=20)
    assert campaign.status() is Status.ROLLING_BACK


def test_an_approval_does_not_replace_the_override_of_harm() -> None:
    campaign = Reviewed(asking(1, on_fail=OnFail.PAUSE))
    campaign.pass_stage(0)
    campaign.observe(canary_wrong=200, rounds=60)
    campaign.do(Approve("cem"))
    campaign.do(Resume("ann"))
    assert (campaign.status(), campaign.rollout.stage_index) == (Status.PAUSED, 0)
    campaign.do(Promote("ann", "a better one is worse by this measure"))
    assert (campaign.status(), campaign.rollout.stage_index) == (Status.RUNNING, 1)
    assert [entry.kind for entry in campaign.rollout.history].count(Happening.OVERRIDDEN) == 1


def test_there_is_nothing_to_approve_where_no_stage_waits() -> None:
    campaign = Reviewed(asking(1), start=False)
    with pytest.raises(Conflict, match="CREATED"):
        campaign.do(Approve("cem"))
    campaign.do(Start("ann"))
    with pytest.raises(Conflict, match="no stage of it waits"):
        campaign.do(Approve("cem"))
    campaign.pass_stage(0)
    campaign.do(Approve("cem"))
    with pytest.raises(Conflict, match="cem approved of stage 2"):
        campaign.do(Approve("dee"))


def test_a_stage_of_a_version_that_was_revoked_waits_for_nobody() -> None:
    campaign = Reviewed(asking(1))
    campaign.do(Promote("ann", "seen"))
    waited = [campaign.rollout.awaits_since_s]
    campaign.do(Revoke("digits version 2 was revoked by ann: It leaks."))
    waited.append(campaign.rollout.awaits_since_s)
    assert [since_s is not None for since_s in waited] == [True, False]
    with pytest.raises(Conflict, match="no stage of it waits for approval"):
        campaign.do(Approve("ben", stage=2))
    campaign.do(Abort("ann", "revoked", roll_back=True))
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK


def test_a_device_that_fails_late_does_not_end_the_waiting() -> None:
    made = asking(1)
    gate = msgspec.structs.replace(made.gate, maximum_failed_share=0.5)
    campaign = Reviewed(msgspec.structs.replace(made, gate=gate))
    campaign.pass_stage(0)
    for deployment in campaign.cohort(1):
        campaign.report(deployment, DeploymentState.FAILED)
    assert campaign.waits()
    assert len(campaign.orders()) == 1
