"""Reports may come doubled and in any order: in the end they say the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.deployment import PROGRESS, DeploymentState
from fleet.rollout.events import DeploymentReported
from fleet.rollout.targeting import cohort_ends, ordered
from tests.support.rollouts import DEVICES, Campaign, plan

Script = tuple[DeploymentState, ...]
ENDS = [s for s in DeploymentState if s.is_terminal]
SCRIPTS = st.builds(
    lambda count, end: (*PROGRESS[:count], end), st.integers(0, len(PROGRESS)), st.sampled_from(ENDS)
)


def outcome(campaign: Campaign) -> object:
    """Return what must not depend on the order; times may."""
    rollout = campaign.rollout
    ends = [(d.attempt.state, d.restore is not None) for d in rollout.deployments]
    return ends, rollout.status, rollout.open_restores, [(s.open, s.failed) for s in rollout.stages]


def reports(campaign: Campaign, scripts: list[Script]) -> list[DeploymentReported]:
    return [
        DeploymentReported(d.device_id, d.attempt.deployment_id, state, 1000.0)
        for d, script in zip(campaign.rollout.deployments, scripts, strict=True)
        for state in script
    ]


@given(
    scripts=st.lists(SCRIPTS, min_size=len(DEVICES), max_size=len(DEVICES)),
    share=st.sampled_from([0.0, 0.5, 0.99]),
    data=st.data(),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_doubled_and_reordered_reports_end_the_same(
    scripts: list[Script], share: float, data: st.DataObject
) -> None:
    tolerant = plan("all", maximum_failed_share=share)
    straight, shaken = Campaign(tolerant), Campaign(tolerant)
    sent = reports(straight, scripts)
    for report in sent:
        straight.do(report)
    doubled = sent + data.draw(st.lists(st.sampled_from(sent), max_size=10))
    for report in data.draw(st.permutations(doubled)):
        shaken.do(report)
    straight_failed = sum(stage.failed for stage in straight.rollout.stages)
    if straight_failed > share * len(DEVICES):  # the roll-back cancels whoever had not ended yet
        assert straight.status() is shaken.status()
        assert {d.restore is not None for d in shaken.rollout.deployments} == {True}
    else:
        assert outcome(straight) == outcome(shaken)


@given(st.lists(st.text("abc-0123", min_size=1, max_size=8), unique=True, max_size=40), st.integers(0, 2**63))
@settings(derandomize=True, deadline=None)
def test_the_order_of_devices_depends_on_seed_and_names_alone(names: list[str], seed: int) -> None:
    once = ordered(seed, names)
    assert sorted(once) == sorted(names)
    assert ordered(seed, reversed(names)) == once
    for name in names[:3]:  # a device that leaves does not move the others
        assert ordered(seed, [n for n in names if n != name]) == [n for n in once if n != name]


@given(st.integers(4, 5000), st.integers(1, 49), st.integers(51, 99))
@settings(derandomize=True, deadline=None)
def test_cohorts_rise_and_reach_everybody(count: int, low: int, high: int) -> None:
    stages = plan("50%", "all").stages
    ends = cohort_ends(stages, count)
    assert ends == (-(-count // 2), count)
    if -(-count * low // 100) < -(-count * high // 100) < count:
        ends = cohort_ends(plan(f"{low}%", f"{high}%", "all").stages, count)
        assert ends == (-(-count * low // 100), -(-count * high // 100), count)
