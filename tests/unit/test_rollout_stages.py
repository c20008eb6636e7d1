"""Stages: how they begin, bake, pass, and are taken back."""

from __future__ import annotations

import msgspec

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.records import SealedWindow
from fleet.rollout.events import (
    Announce,
    EvidenceObserved,
    Resume,
)
from fleet.rollout.gates.comparison import Basis
from fleet.rollout.gates.gate import Outcome
from fleet.rollout.plans.plan import OnInconclusive
from fleet.rollout.state.rollout import CauseCode, Happening, Status
from tests.support.rollouts import DEVICES, NEW, Campaign, assigned, plan, window


def test_a_harmless_version_reaches_every_device_stage_by_stage() -> None:
    campaign = Campaign()
    assert len(campaign.cohort(0)) == 1
    assert assigned(campaign.commands) == {campaign.cohort(0)[0].device_id: 2}
    for stage in range(3):
        assert campaign.rollout.stage_index == stage
        campaign.succeed(stage)
        campaign.observe(rounds=3)
    assert campaign.status() is Status.SUCCEEDED
    assert assigned(campaign.commands) == dict.fromkeys(DEVICES, 2)
    assert campaign.rollout.cause is None
    kinds = [entry.kind for entry in campaign.rollout.history]
    assert kinds.count(Happening.STAGE_PASSED) == 3
    assert campaign.verdict().metrics[0].basis is Basis.EARLIER


def test_a_stage_does_not_end_before_its_minimum_bake() -> None:
    campaign = Campaign(plan(minimum_bake_s=30.0))
    campaign.succeed(0)
    campaign.observe(rounds=10)
    assert campaign.verdict().outcome is Outcome.PASS
    assert campaign.rollout.stage_index == 0
    campaign.wait(9.0)
    assert campaign.rollout.stage_index == 0
    campaign.wait(1.0)
    assert campaign.rollout.stage_index == 1


def test_a_stage_does_not_end_while_one_of_its_deployments_is_open() -> None:
    campaign = Campaign(plan("50%", "all"))
    late, *others = campaign.cohort(0)
    for deployment in others:
        campaign.report(deployment, DeploymentState.SUCCEEDED)
    campaign.observe(rounds=5)
    campaign.wait(50.0)
    assert campaign.rollout.stage_index == 0
    campaign.report(late, DeploymentState.SUCCEEDED)
    assert campaign.rollout.stages[0].bake_started_s == campaign.now_s
    campaign.wait(5.0)
    assert campaign.rollout.stage_index == 1


def test_a_harmful_version_is_caught_on_the_canary_and_taken_back() -> None:
    campaign = Campaign()
    canary = campaign.cohort(0)[0]
    campaign.succeed(0)
    campaign.observe(canary_wrong=140)
    assert campaign.status() is Status.ROLLING_BACK
    assert campaign.orders()[-1] == (canary.device_id, f"r7-{canary.index}b", 1)
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK
    assert campaign.cause().code == CauseCode.GATE_FAILED.value
    assert "70.0% of 200 on 1 canary against 3.0% of 1,400 on 7 controls" in campaign.cause().detail
    assert set(assigned(campaign.commands)) == {canary.device_id}
    unsent = [d for d in campaign.rollout.deployments if d.stage > 0]
    assert {d.attempt.state for d in unsent} == {DeploymentState.CANCELED}


def test_harm_shown_while_others_still_install_cancels_them_and_takes_all_back() -> None:
    campaign = Campaign(plan("50%", "all"))
    first, second, third, fourth = campaign.cohort(0)
    campaign.report(first, DeploymentState.SUCCEEDED)
    campaign.report(second, DeploymentState.SUCCEEDED)
    campaign.report(third, DeploymentState.DOWNLOADING)
    campaign.observe(canary_wrong=140)
    states = [d.attempt.state for d in campaign.cohort(0)]
    assert states == [DeploymentState.SUCCEEDED] * 2 + [DeploymentState.CANCELED] * 2
    back = [order for order in campaign.orders() if order[1].endswith("b")]
    assert sorted(back) == sorted((d.device_id, f"r7-{d.index}b", 1) for d in (first, second, third, fourth))
    campaign.report(third, DeploymentState.SUCCEEDED)  # the forward order, crossing the way back
    assert campaign.rollout.deployments[third.index].attempt.state is DeploymentState.CANCELED
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK


def test_a_first_version_is_judged_by_its_limit_and_removed_when_it_fails() -> None:
    nothing: dict[str, int | None] = dict.fromkeys(DEVICES)
    good = Campaign(devices=nothing)
    good.succeed(0)
    good.observe(rounds=3)
    assert good.rollout.stage_index == 1
    bad = Campaign(devices=nothing)
    bad.succeed(0)
    bad.observe(canary_wrong=140)
    assert bad.verdict().metrics[0].basis is Basis.LIMIT
    assert bad.orders()[-1][2] is None
    bad.restore_all()
    assert bad.rollout.status is Status.ROLLED_BACK


def test_the_plan_may_ask_to_roll_back_without_a_verdict() -> None:
    campaign = Campaign(plan(on_inconclusive=OnInconclusive.ROLL_BACK))
    campaign.succeed(0)
    campaign.wait(60.0)
    campaign.restore_all()
    assert campaign.status() is Status.ROLLED_BACK
    assert campaign.cause().code == CauseCode.INCONCLUSIVE.value


def test_counts_that_cannot_be_read_are_telemetry_that_makes_no_sense() -> None:
    campaign = Campaign()
    campaign.succeed(0)
    fields = msgspec.structs.asdict(window(NEW, campaign.now_s)) | {"profile": {}, "counts": b"\x07"}
    canary = campaign.cohort(0)[0].device_id
    campaign.do(EvidenceObserved(((canary, SealedWindow(**fields)),) * 3))
    assert campaign.status() is Status.PAUSED
    assert campaign.verdict().outcome is Outcome.ERROR
    assert campaign.rollout.stages[0].evidence.canary.unusable == 3


def test_telemetry_that_contradicts_itself_pauses_and_resuming_gives_it_another_chance() -> None:
    campaign = Campaign()
    campaign.succeed(0)
    canary = campaign.cohort(0)[0].device_id
    nonsense = window(NEW, campaign.now_s, wrong=-50)
    commands = campaign.do(EvidenceObserved(((canary, nonsense),) * 3))
    assert campaign.status() is Status.PAUSED
    assert campaign.verdict().outcome is Outcome.ERROR
    ignored = [c for c in commands if isinstance(c, Announce) and c.kind == Happening.TELEMETRY_IGNORED]
    assert len(ignored) == 1
    assert campaign.rollout.stages[0].evidence.canary.tallies[0].total == 0
    campaign.do(Resume("ann"))
    assert campaign.status() is Status.RUNNING
    campaign.observe(rounds=3)
    assert campaign.rollout.stage_index == 1
