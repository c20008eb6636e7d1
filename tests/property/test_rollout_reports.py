"""Reports may come doubled and in any order: in the end they say the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.deployment import PROGRESS, DeploymentState
from fleet.protocol.errors import Cause, InvalidPlan
from fleet.rollout import attempts
from fleet.rollout.events import DeploymentReported
from fleet.rollout.plans.plan import Retries, Stage
from fleet.rollout.state.draft import Draft
from fleet.rollout.targeting import cohort_ends, ordered, stage_sizes
from tests.support.rollouts import DEVICES, Campaign, plan, stored
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

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
@settings(max_examples=examples(150), deadline=None, derandomize=True)
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


CAUSES = st.sampled_from([None, None, None, Cause("unavailable", "Gone."), Cause("trial_failed", "Bad.")])
SAID = st.tuples(
    st.integers(0, len(DEVICES)),  # one more than there are
    st.sampled_from(["f", "f", "f", "f", "f1", "b", "x"]),
    st.sampled_from([*PROGRESS, *DeploymentState]),
    CAUSES,
    st.booleans(),
)


@given(st.lists(SAID, max_size=40), st.lists(SAID, max_size=10))
@settings(max_examples=examples(100), deadline=None, derandomize=True)
def test_a_batch_says_what_its_reports_say_one_by_one(first: list[Any], then: list[Any]) -> None:
    patient = msgspec.structs.replace(plan("50%", "all"), retries=Retries(attempts=2, backoff_s=1.0))
    rollout = Campaign(patient).rollout
    names = {d.index: d.device_id for d in rollout.deployments}
    for said in (first, then):
        batch = [
            DeploymentReported(names[place] if is_own else "cam-x", f"r7-{place}{way}", state, 9.0, cause)
            for place, way, state, cause, is_own in said
            if place in names or not is_own
        ]
        batched, single = Draft(rollout, 2000.0), Draft(rollout, 2000.0)
        attempts.take_reports(batched, batch)
        for report in batch:
            attempts.take_report(single, report)
        (rollout, commands), (expected, wanted) = batched.finished(), single.finished()
        assert stored(rollout) == stored(expected)
        assert rollout.tally == expected.tally
        assert Counter(map(repr, commands)) == Counter(map(repr, wanted))


@given(st.lists(st.text("abc-0123", min_size=1, max_size=8), unique=True, max_size=40), st.integers(0, 2**63))
@settings(derandomize=True, deadline=None)
def test_the_order_of_devices_depends_on_seed_and_names_alone(names: list[str], seed: int) -> None:
    once = ordered(seed, names)
    assert sorted(once) == sorted(names)
    assert ordered(seed, reversed(names)) == once
    for name in names[:3]:  # a device that leaves does not move the others
        assert ordered(seed, [n for n in names if n != name]) == [n for n in once if n != name]


STRATA = st.dictionaries(
    st.text("abc-0123", min_size=1, max_size=8), st.sampled_from(["pi4", "pi5", "jetson", ""]), min_size=1
)


@given(STRATA, st.integers(0, 2**63), st.data())
@settings(derandomize=True, deadline=None)
def test_every_prefix_has_of_each_stratum_its_share(
    strata: dict[str, str], seed: int, data: st.DataObject
) -> None:
    order = ordered(seed, strata, strata)
    assert sorted(order) == sorted(strata)
    assert ordered(seed, data.draw(st.permutations(sorted(strata))), strata) == order
    sizes = Counter(strata.values())
    for name in sizes:  # within a stratum the order is that of the names alone
        members = [device for device in order if strata[device] == name]
        assert members == ordered(seed, members)
    assert len({strata[device] for device in order[: len(sizes)]}) == len(sizes)
    for end in range(len(sizes), len(order) + 1):
        seen = Counter(strata[device] for device in order[:end])
        for name, size in sizes.items():
            assert abs(seen[name] - end * size / len(order)) <= len(sizes)


@given(
    st.integers(1, 30),
    st.sets(st.integers(0, 29), min_size=1),
    st.integers(0, 2**32),
)
@settings(derandomize=True, deadline=None)
def test_a_named_cohort_is_all_that_match_and_were_not_reached(
    count: int, matching: set[int], seed: int
) -> None:
    names = [f"cam-{i}" for i in range(count + 1)]
    stages = tuple(
        Stage(devices=devices, cohort=cohort, minimum_bake_s=0.0, maximum_bake_s=1.0)
        for devices, cohort in ((1, None), (None, "tag(lab)"), ("all", None))
    )
    order = ordered(seed, names)
    lab = {f"cam-{i}" for i in matching}
    try:
        placed, ends = stage_sizes(stages, order, {1: lab})
    except InvalidPlan:
        assert not (lab & set(order[1:])) or set(order[1:]) <= lab
        return
    assert sorted(placed) == sorted(names)
    assert placed[0] == order[0]
    assert placed[1 : ends[1]] == [name for name in order[1:] if name in lab]


@given(st.integers(4, 5000), st.integers(1, 49), st.integers(51, 99))
@settings(derandomize=True, deadline=None)
def test_cohorts_rise_and_reach_everybody(count: int, low: int, high: int) -> None:
    stages = plan("50%", "all").stages
    ends = cohort_ends(stages, count)
    assert ends == (-(-count // 2), count)
    if -(-count * low // 100) < -(-count * high // 100) < count:
        ends = cohort_ends(plan(f"{low}%", f"{high}%", "all").stages, count)
        assert ends == (-(-count * low // 100), -(-count * high // 100), count)
