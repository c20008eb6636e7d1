"""Operators' events, ends that are final, purity and storage."""

from __future__ import annotations

import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Conflict, InvalidInput, InvalidPlan, Outdated, StorageCorrupt
from fleet.rollout.engine import step
from fleet.rollout.events import (
    Abort,
    Assign,
    DeploymentReported,
    Event,
    EvidenceObserved,
    Pause,
    Promote,
    Resume,
    Start,
    Supersede,
    Ticked,
)
from fleet.rollout.gates.stored import WHOLE
from fleet.rollout.meanwhile import check_current
from fleet.rollout.plans.plan import default_gate
from fleet.rollout.state.rollout import CauseCode, Happening, Kind, Status
from tests.support.rollouts import DEVICES, NEW, OLD, Campaign, plan, restored, stored, window


def test_too_little_data_pauses_at_the_maximum_bake_and_never_promotes() -> None:
    campaign = Campaign()
    campaign.succeed(0)
    campaign.wait(59.0)
    assert campaign.status() is Status.RUNNING
    campaign.wait(1.0)
    assert campaign.status() is Status.PAUSED
    assert "INCONCLUSIVE" in campaign.rollout.pause_reason
    campaign.wait(10_000.0)
    assert campaign.rollout.stage_index == 0
    campaign.do(Resume("ann"))
    assert campaign.status() is Status.RUNNING
    campaign.observe(rounds=4)
    assert campaign.rollout.stage_index == 1


def test_promote_ends_a_stage_without_the_gate_and_is_kept_as_an_override() -> None:
    campaign = Campaign()
    campaign.do(Promote("ann", "seen it work"))
    assert campaign.rollout.stage_index == 1
    assert campaign.rollout.stages[0].overridden
    kept = [entry.text for entry in campaign.rollout.history if entry.kind is Happening.OVERRIDDEN]
    assert len(kept) == 1
    assert "ann" in kept[0]
    assert "seen it work" in kept[0]
    campaign.do(Promote("ann", "again"))
    campaign.do(Promote("ann", "and again"))
    assert campaign.status() is Status.RUNNING
    for stage in range(3):
        campaign.succeed(stage)
    assert campaign.status() is Status.SUCCEEDED


def test_a_promotion_that_names_a_stage_is_carried_out_once() -> None:
    campaign = Campaign()
    campaign.wait(1.0)
    campaign.do(Promote("ann", "seen\nit", stage=1))
    assert campaign.rollout.stage_index == 1
    before = campaign.rollout
    with pytest.raises(Conflict) as refused:
        campaign.do(Promote("bob", "me too", stage=1))
    said = "the turn of stage 2, not 1. Decided since: Stage 1 promoted by ann: seen it. The gate had said"
    assert said in refused.value.message
    with pytest.raises(Conflict, match=r"turn of stage 2, not 3\. Look again"):
        campaign.do(Promote("bob", "me too", stage=3))
    for stage in (0, 4):
        with pytest.raises(InvalidInput, match=f"no stage {stage}: its plan has 3"):
            campaign.do(Promote("bob", "me too", stage=stage))
    assert campaign.rollout is before
    campaign.do(Promote("bob", "the second", stage=2))
    assert campaign.rollout.stage_index == 2


def test_what_was_decided_since_is_told_and_how_much_more_there_was() -> None:
    campaign = Campaign()
    seen = campaign.rollout.decisions
    check_current(campaign.rollout, {seen, seen + 9})
    check_current(campaign.rollout, None)
    for turn in range(70):
        campaign.do(Pause("ann", f"turn {turn}"))
        campaign.do(Resume("ann"))
    last = "Paused by ann: turn 69. Resumed by ann."
    for since, told in (
        (2, f": {last}"),
        (4, f", the last 3 of 4: Resumed by ann. {last}"),
        (140, f", the last 3 of 140: Resumed by ann. {last}"),
    ):
        with pytest.raises(Outdated) as refused:
            check_current(campaign.rollout, {seen + 140 - since, 10**6})
        assert refused.value.message.endswith(f"Decided since you looked{told}")


@pytest.mark.parametrize(("named", "said"), [({99}, "99 decisions"), (set(), "so many decisions")])
def test_decisions_that_there_never_were_are_called_that(named: set[int], said: str) -> None:
    rollout = Campaign().rollout
    with pytest.raises(Outdated) as refused:
        check_current(rollout, named)
    now = f"it is RUNNING and has had {rollout.decisions} of them."
    assert refused.value.message == f"Rollout {rollout.number} never had {said}: {now}"


def test_a_pause_holds_progress() -> None:
    campaign = Campaign()
    campaign.do(Pause("ann", "lunch"))
    campaign.succeed(0)
    campaign.observe(rounds=20)
    assert campaign.status() is Status.PAUSED
    assert campaign.rollout.stage_index == 0
    campaign.do(Resume("ann"))
    assert campaign.rollout.stage_index == 0
    campaign.wait(5.0)
    assert campaign.rollout.stage_index == 1


def test_a_pause_does_not_hold_protection() -> None:
    campaign = Campaign()
    campaign.succeed(0)
    campaign.do(Pause("ann", "lunch"))
    campaign.observe(canary_wrong=140)
    assert campaign.status() is Status.ROLLING_BACK


def test_abort_keeps_the_version_where_it_succeeded_and_takes_back_what_is_in_flight() -> None:
    campaign = Campaign(plan("50%", "all"))
    first, second, third, fourth = campaign.cohort(0)
    campaign.report(first, DeploymentState.SUCCEEDED)
    campaign.do(Abort("ann", "wrong model", roll_back=False))
    assert campaign.status() is Status.ROLLING_BACK
    back = {order[0] for order in campaign.orders() if order[1].endswith("b")}
    assert back == {second.device_id, third.device_id, fourth.device_id}
    campaign.restore_all()
    assert campaign.status() is Status.ABORTED
    assert campaign.cause().code == CauseCode.ABORTED.value


def test_abort_with_roll_back_takes_everybody_back() -> None:
    campaign = Campaign(plan("50%", "all"))
    campaign.succeed(0)
    campaign.do(Abort("ann", "wrong model", roll_back=True))
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK
    assert all(d.is_restored for d in campaign.cohort(0))


@pytest.mark.parametrize("roll_back", [False, True])
def test_abort_before_the_start_sends_nothing(roll_back: bool) -> None:
    campaign = Campaign(started=False)
    campaign.do(Abort("ann", "changed my mind", roll_back=roll_back))
    assert campaign.status() is Status.ABORTED
    assert campaign.orders() == []
    assert all(d.attempt.state is DeploymentState.CANCELED for d in campaign.rollout.deployments)


@pytest.mark.parametrize(
    ("reason", "said"), [("", "Aborted by ann."), ("wrong model", "Aborted by ann: wrong model.")]
)
def test_an_abort_without_a_reason_is_a_whole_sentence(reason: str, said: str) -> None:
    campaign = Campaign(started=False)
    campaign.do(Abort("ann", reason, roll_back=False))
    assert campaign.cause().detail == said


@pytest.mark.parametrize("rolling_back", [False, True])
def test_superseding_ends_everything_at_once_and_sends_nothing(rolling_back: bool) -> None:
    campaign = Campaign(plan("50%", "all"))
    campaign.report(campaign.cohort(0)[0], DeploymentState.SUCCEEDED)
    if rolling_back:
        campaign.do(Abort("ann", "wrong model", roll_back=True))
    orders = campaign.orders()
    campaign.do(Supersede("ann", "rolled back to version 1"))
    assert campaign.status() is Status.ABORTED
    assert campaign.orders() == orders
    assert all(d.has_ended for d in campaign.rollout.deployments)
    assert campaign.rollout.open_restores == 0


OPERATORS: dict[str, Event] = {
    "start": Start("ann"),
    "pause": Pause("ann", "x"),
    "resume": Resume("ann"),
    "promote": Promote("ann", "x"),
    "abort": Abort("ann", "x", roll_back=False),
    "supersede": Supersede("ann", "x"),
}
ALLOWED = {
    Status.CREATED: {"start", "abort", "supersede"},
    Status.RUNNING: {"pause", "promote", "abort", "supersede"},
    Status.PAUSED: {"resume", "promote", "abort", "supersede"},
    Status.ROLLING_BACK: {"supersede"},
    Status.SUCCEEDED: set(),
    Status.ABORTED: set(),
    Status.ROLLED_BACK: set(),
    Status.FAILED: set(),
}


def campaign_in(status: Status) -> Campaign:
    campaign = Campaign(plan("all"), started=status is not Status.CREATED)
    if status is Status.PAUSED:
        campaign.do(Pause("ann", "x"))
    elif status is Status.ABORTED:
        campaign.succeed(0)
        campaign.do(Abort("ann", "x", roll_back=False))
    elif status is Status.SUCCEEDED:
        campaign.succeed(0)
        campaign.observe(rounds=6)
    elif status in {Status.ROLLING_BACK, Status.ROLLED_BACK, Status.FAILED}:
        campaign.do(Abort("ann", "x", roll_back=True))
        if status is Status.ROLLED_BACK:
            campaign.restore_all()
        elif status is Status.FAILED:
            campaign.wait(100.0)
    assert campaign.status() is status
    return campaign


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_may_do_what_the_table_says_and_nothing_else(status: Status, name: str) -> None:
    campaign = campaign_in(status)
    if name in ALLOWED[status]:
        campaign.do(OPERATORS[name])
        assert campaign.status() is not status or name == "promote"
    else:
        with pytest.raises(Conflict, match=status.value):
            campaign.do(OPERATORS[name])


@pytest.mark.parametrize("status", [s for s in Status if s.is_final])
def test_a_rollout_that_has_ended_stays_as_it_is(status: Status) -> None:
    campaign = campaign_in(status)
    before = campaign.rollout
    for deployment in before.deployments:
        campaign.report(deployment, DeploymentState.FAILED)
    campaign.do(
        EvidenceObserved(((before.deployments[0].device_id, window(NEW, campaign.now_s, wrong=200)),))
    )
    campaign.wait(1e6)
    assert campaign.rollout is before


def test_a_step_leaves_the_state_it_was_given_as_it_was() -> None:
    campaign = Campaign()
    before, kept = campaign.rollout, stored(campaign.rollout)
    canary = campaign.cohort(0)[0]
    report = DeploymentReported(canary.device_id, canary.attempt.deployment_id, DeploymentState.FAILED, 1.0)
    first = step(before, report, campaign.now_s)
    second = step(before, report, campaign.now_s)
    assert stored(before) == kept
    assert first == second
    assert first[0] is not before
    assert first[0].revision == before.revision + 1


def test_time_that_changes_nothing_returns_the_same_object() -> None:
    campaign = Campaign()
    before = campaign.rollout
    assert campaign.wait(1.0) == ()
    assert campaign.rollout is before


def test_devices_that_run_the_version_are_left_out_and_nobody_is_refused() -> None:
    campaign = Campaign(devices={**DEVICES, "done": 2})
    assert campaign.rollout.deployments.of_device("done") is None
    with pytest.raises(InvalidPlan, match="no device"):
        Campaign(devices={"done": 2})
    with pytest.raises(InvalidPlan, match="no device"):
        Campaign(devices={})


def test_an_update_needs_metrics_and_a_rollback_has_none() -> None:
    with pytest.raises(InvalidPlan, match="at least one metric"):
        Campaign(plan(metrics=()))
    with pytest.raises(InvalidPlan, match="installs alone"):
        Campaign(plan(metrics=default_gate().metrics), kind=Kind.ROLLBACK)


def test_what_cannot_be_read_back_from_the_store_is_corrupt() -> None:
    kept = stored(Campaign().rollout)
    assert restored(kept) == Campaign().rollout
    summary, (evidence,) = kept.summary, kept.evidence
    for data in (summary[:-1], b"{}", b"\xff", summary.replace(b"RUNNING", b"WALKING")):
        with pytest.raises(StorageCorrupt):
            restored(kept._replace(summary=data))
    for parts in ({}, {WHOLE: b"\x90"}, {WHOLE: evidence[WHOLE][:-1]}, {**evidence, 0: b"\xc1"}):
        with pytest.raises(StorageCorrupt):
            restored(kept._replace(evidence=(parts,)))
    for of_stages in ((), (evidence, evidence)):
        with pytest.raises(StorageCorrupt):
            restored(kept._replace(evidence=of_stages))
    with pytest.raises(StorageCorrupt):
        restored(kept._replace(devices=kept.devices[:-1]))


def test_ticks_before_the_start_do_nothing() -> None:
    campaign = Campaign(started=False)
    before = campaign.rollout
    campaign.do(EvidenceObserved((("cam-1", window(OLD, 0.0)),)))
    campaign.do(Ticked())
    campaign.wait(1e6)
    assert campaign.rollout is before


def test_a_rollback_that_is_itself_taken_back_leaves_nobody_an_order_that_he_could_not_follow() -> None:
    campaign = Campaign(plan("all", metrics=(), maximum_failed_share=0.9), kind=Kind.ROLLBACK)
    refused, *others = campaign.cohort(0)
    campaign.report(refused, DeploymentState.REJECTED)
    campaign.do(Abort("ann", "the wrong version", roll_back=True))
    back = {c.device_id for c in campaign.commands if isinstance(c, Assign) and c.deployment_id.endswith("b")}
    assert back == {part.device_id for part in (refused, *others)}
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK
