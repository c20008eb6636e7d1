"""Property tests of who joins which stage: counts are bounds, and shares stay what the plan says."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.rollout.events import DevicesJoined, DevicesTaken, Joiner
from fleet.rollout.plans.plan import Membership, Plan, Stage, share_of
from fleet.rollout.stages import size_of
from fleet.rollout.state.draft import Draft
from fleet.rollout.targeting import lot_limits, rooms, stage_of
from tests.support.rollouts import Campaign, plan
from tests.support.thoroughness import ALL

START = 20
STAGES = st.sampled_from(
    [
        (1, "all"),
        (1, 5, "all"),
        (2, "50%", "all"),
        ("10%", 5, "all"),
        ("10%", 5, "60%", "all"),
        ("10%", "50%", 15, "all"),
        (3, 20),
        ("25%", "all"),
    ]
)
LATE = [f"late-{i}" for i in range(12)]
JOINS = st.lists(st.sets(st.integers(0, 200), max_size=30), max_size=5)


def continuous(devices: tuple[int | str, ...]) -> Plan:
    made = plan(*devices)
    return Plan(stages=made.stages, gate=made.gate, membership=Membership.CONTINUOUS)


def stage(**devices: Any) -> Stage:
    return Stage(minimum_bake_s=0.0, maximum_bake_s=1.0, **devices)


def sizes(campaign: Campaign) -> list[int]:
    """How many devices each stage has, without those that another rollout took."""
    draft = Draft(campaign.rollout, campaign.now_s)
    return [size_of(draft, place) for place in range(len(campaign.rollout.plan.stages))]


@settings(max_examples=200 if ALL else 50)
@given(devices=STAGES, joins=JOINS, taken=st.sets(st.integers(0, START - 1), max_size=6))
def test_no_stage_of_a_count_ever_has_more_whatever_joins(
    devices: tuple[int | str, ...], joins: list[set[int]], taken: set[int]
) -> None:
    campaign = Campaign(continuous(devices), devices={f"cam-{i}": 1 for i in range(START)})
    campaign.do(DevicesTaken(tuple(f"cam-{i}" for i in sorted(taken)), rollout=8, priority=1))
    for some in joins:
        there = len(campaign.rollout.deployments)
        campaign.do(DevicesJoined(tuple(Joiner(f"late-{i}", 1) for i in some)))
        for reached, asked in zip(accumulate(sizes(campaign)), devices, strict=True):
            assert not isinstance(asked, int) or reached <= asked
        if not isinstance(devices[-1], int):  # nobody is left out
            assert all(campaign.rollout.deployments.of_device(f"late-{i}") for i in some)
        assert len(campaign.rollout.deployments) <= there + len(some)
    begun = campaign.rollout.stages[0]
    assert begun.size == sizes(campaign)[0]


@settings(max_examples=20)
@given(
    devices=st.sampled_from([(1, 5, "all"), (2, "50%", "all"), ("10%", "50%", "all")]),
    shuffled=st.permutations(LATE),
)
def test_without_room_in_counts_a_stage_depends_on_seed_and_id_alone(
    devices: tuple[int | str, ...], shuffled: list[str]
) -> None:
    found = []
    for order in (LATE, shuffled):
        campaign = Campaign(continuous(devices), devices={f"cam-{i}": 1 for i in range(START)})
        for name in order:
            campaign.do(DevicesJoined((Joiner(name, 1),)))
        found.append({part.device_id: part.stage for part in campaign.rollout.deployments})
    assert found[0] == found[1]


@given(
    start=st.integers(20, 500),
    share=st.sampled_from(["5%", "10%", "50%", "80%"]),
    count=st.sampled_from([None, 1, 10]),
    named=st.sampled_from([0.0, 0.02, 0.04]),
)
def test_shares_stay_what_the_plan_says_however_the_fleet_grows(
    start: int, share: str, count: int | None, named: float
) -> None:
    """Whatever counts and cohorts are before: of 20,000 that join, evenly spread, the share is reached."""
    wanted = share_of(share)
    assert wanted is not None
    some, ends = list[Stage](), list[int]()
    if count is not None:
        some.append(stage(devices=count))
        ends.append(count)
    if named:
        some.append(stage(cohort='site == "lyon"'))
        ends.append((ends or [0])[-1] + round(named * (start - (ends or [0])[-1])))
    stages = (*some, stage(devices=share), stage(devices="all"))
    ends += [max((ends or [0])[-1], round(wanted * start)), start]
    each = [end - begin for begin, end in zip((0, *ends), ends, strict=False)]
    limits, room = lot_limits(stages, tuple(ends)), rooms(stages, each)
    at_start = each[len(some) - 1] / (start - (count or 0)) if named else 0.0
    reached = at_start
    for step in range(1000):
        lot = (step + 0.5) / 1000
        place = stage_of(lot, stages, limits, room)
        assert place is not None
        assert stages[place].cohort is None
        assert place != 0 or count is None
        reached += (1.0 - at_start) * (place == len(stages) - 2) / 1000
    assert abs(reached - max(wanted, at_start)) < 0.002
