"""Spans of a stage: what comes over the fleet while orders go out is the fault of neither side."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.gates.evidence import Arm, Evidence, Tally
from fleet.rollout.gates.gate import Outcome, judge
from fleet.rollout.gates.spans import MOST_SPANS, span_of
from fleet.rollout.plans.plan import Metric, MetricGate
from fleet.rollout.state.rollout import Status
from tests.support.rollouts import Campaign, plan

ERRORS = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.01, limit=0.05)
FLEET, REACH, PACE, REQUESTS = 400, 380, 20, 100


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 10**6), st.integers(0, 10**6), st.data())
def test_spans_follow_one_another_down_to_the_last(reach: int, rest: int, data: st.DataObject) -> None:
    some = sorted(data.draw(st.lists(st.integers(0, reach), min_size=1, max_size=8)))
    spans = [
        span_of(now, reach + rest - now, canaries_at_end=reach, controls_at_end=rest)
        for now in (*some, reach)
    ]
    assert spans == sorted(spans, reverse=True)
    assert spans[-1] == 0
    assert max(spans) < MOST_SPANS


def released(*, outage_from: int, harm: float = 0.0) -> Evidence:
    """Return the evidence of a stage that 20 devices are released to in each of 19 windows, then baked for 6.

    Numbers are what is expected of 1 % errors, and of 6 % from a time on.
    """
    whole = Evidence.empty(1)
    seen = [0, 0]
    for tick in range(REACH // PACE + 6):
        have = min(REACH, PACE * (tick + 1))
        share = 0.06 if tick >= outage_from else 0.01
        arms = []
        for side, (devices, p) in enumerate(((have, share + harm), (FLEET - have, share))):
            n, k = REQUESTS, round(REQUESTS * p)
            tally = Tally(
                k * devices,
                n * devices,
                float(k * k * devices),
                float(k * n * devices),
                float(n * n * devices),
            )
            arms.append(Arm(max(0, devices - seen[side]), devices, 0, (tally,)))
            seen[side] = max(seen[side], devices)
        span = span_of(have, FLEET - have, canaries_at_end=REACH, controls_at_end=FLEET - REACH)
        whole = whole.plus(Evidence(arms[0], arms[1]).during(span))
    return whole


def outcome(evidence: Evidence) -> Outcome:
    return judge(plan(metrics=(ERRORS,)), (evidence,), has_control=True, heard=1, expected=1).outcome


def test_an_outage_late_in_a_release_is_not_taken_for_harm() -> None:
    """Taken together, the same evidence fails: canaries are 4.6 % late, controls 1.9 %."""
    for outage_from in (8, 12, 14):
        evidence = released(outage_from=outage_from)
        assert len(evidence.spans) == MOST_SPANS
        assert outcome(evidence) is not Outcome.FAIL
        assert outcome(msgspec.structs.replace(evidence, spans={})) is Outcome.FAIL
    assert outcome(released(outage_from=10, harm=0.03)) is Outcome.FAIL


def test_spans_neither_hide_harm_nor_make_it_where_nothing_changes() -> None:
    assert outcome(released(outage_from=99)) is Outcome.PASS
    assert outcome(released(outage_from=99, harm=0.03)) is Outcome.FAIL


def test_harm_found_while_a_stage_is_released_stops_its_orders() -> None:
    the_plan = msgspec.structs.replace(plan("75%", "all"), devices_per_minute=6.0)
    campaign = Campaign(the_plan)
    assert len(campaign.orders()) == 1
    campaign.report(campaign.cohort(0)[0], DeploymentState.SUCCEEDED)
    campaign.observe(canary_wrong=6)
    assert campaign.status() is Status.RUNNING
    campaign.wait(10.0)
    assert len(campaign.orders()) == 2
    campaign.observe(canary_wrong=150, rounds=3)
    assert campaign.status() is Status.ROLLING_BACK
    forward = {device for device, _, version in campaign.orders() if version == 2}
    for _ in range(10):
        campaign.wait(10.0)
    assert {device for device, _, version in campaign.orders() if version == 2} == forward
    assert len(forward) == 2


def test_the_engine_tells_spans_apart_while_it_releases() -> None:
    slow = plan("75%", "all", minimum_bake_s=1e6, maximum_bake_s=1e7)
    the_plan = msgspec.structs.replace(slow, devices_per_minute=6.0)
    campaign = Campaign(the_plan)
    for _ in range(6):
        for deployment in campaign.cohort(0):
            if deployment.attempt.is_open:
                campaign.report(deployment, DeploymentState.SUCCEEDED)
        campaign.observe()
        campaign.wait(10.0)
    evidence = campaign.rollout.stages[0].evidence
    assert sorted(evidence.spans) == [0, 1, 2, 3]
    for arm in ("canary", "control"):
        parts = [getattr(part, arm) for part in evidence.spans.values()]
        assert sum(part.windows for part in parts) == getattr(evidence, arm).windows
        assert sum(part.devices for part in parts) == getattr(evidence, arm).devices


def test_of_a_stage_that_has_ended_the_sums_are_kept() -> None:
    campaign = Campaign()
    campaign.succeed(0)
    campaign.observe(rounds=4)
    first, second, *_ = campaign.rollout.stages
    assert first.evidence.canary.windows > 0
    assert first.evidence.spans == {}
    assert len(second.evidence.spans) > 0
