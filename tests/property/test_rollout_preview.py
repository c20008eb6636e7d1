"""The dry run says what the engine then does: the same devices in the same stages, and sane estimates."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import InvalidPlan, VariantUnsupported
from fleet.protocol.maintenance import DAYS, Day, Maintenance
from fleet.protocol.messages import Capabilities
from fleet.rollout.claims import Claim, settle_claims
from fleet.rollout.engine import create, step
from fleet.rollout.events import Assign, DeploymentReported, Promote, Start, Ticked
from fleet.rollout.forecast.forecast import Expectation, MetricForecast, StageForecast
from fleet.rollout.obstacles import Candidate, Obstacle
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Plan, Retries, Stage
from fleet.rollout.preview import MAX_NAMED, Preview, preview
from fleet.rollout.state.rollout import Kind, Rollout, Status
from fleet.rollout.unseen import unseen
from fleet.rollout.waits import mean_wait_s
from fleet.variants import Offer
from tests.support.agent_bundles import build
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

MANIFEST = build(2).manifest
VARIANT = MANIFEST.variants[0]
SIZE = sum({file.sha256: file.size_bytes for file in MANIFEST.files(VARIANT)}.values())
ABLE = Capabilities("1", "x86_64", {"onnxruntime": "1.20"}, 2**30, SIZE)
COHORT = 'room == "even"'
GATE = Gate(metrics=(MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.1, limit=0.3),))
STEPS: list[tuple[int | str, ...]] = [
    (1,),
    (1, "10%"),
    ("20%", "60%"),
    (2, 5),
    (),
    (1, COHORT),
    (COHORT, "80%"),
]

plans = st.builds(
    lambda steps, bake_s, rate, concurrency, retries: Plan(
        stages=tuple(
            Stage(
                devices=None if devices == COHORT else devices,
                cohort=COHORT if devices == COHORT else None,
                minimum_bake_s=bake_s,
                maximum_bake_s=bake_s + 60,
            )
            for devices in (*steps, "all")
        ),
        gate=GATE,
        devices_per_minute=rate,
        concurrency=concurrency,
        retries=Retries(attempts=retries),
    ),
    st.sampled_from(STEPS),
    st.floats(0, 1000),
    st.none() | st.floats(1, 1000),
    st.none() | st.integers(1, 50),
    st.integers(0, 3),
)


def offer(_: str, device: Capabilities) -> Offer:
    if "onnxruntime" not in device.runtimes:
        raise VariantUnsupported("It has no runtime.")
    return Offer(VARIANT.name)


def created(plan: Plan, devices: dict[str, int | None], seed: int = 7) -> Rollout:
    """Draw up a rollout; devices of every second number are the cohort of stages that name one."""
    strata = {name: f"site={int(name.split('-')[1]) % 3}" for name in devices if name.startswith("cam-")}
    even = {name for name in devices if name.startswith("cam-") and int(name.split("-")[1]) % 2 == 0}
    return create(
        number=1, kind=Kind.UPDATE, model="digits", version=2, manifest_sha256="b" * 64, plan=plan, seed=seed,
        devices=devices, now_s=0.0, strata=strata,
        cohorts={index: even for index, stage in enumerate(plan.stages) if stage.cohort is not None},
    )  # fmt: skip


def previewed(rollout: Rollout, candidates: dict[str, Candidate], install_s: float | None = None) -> Preview:
    return preview(rollout, candidates, MANIFEST, offer=offer, typical_install_s=install_s, all_named=True)


def played(rollout: Rollout) -> list[set[str]]:
    """Run a rollout on devices that all succeed, and return whom each stage ordered."""
    now_s, waiting = 1.0, []
    stages: list[set[str]] = []
    rollout, commands = step(rollout, Start(by="anna"), now_s)
    for _ in range(5000):
        for command in commands:
            if isinstance(command, Assign):
                while len(stages) < len(rollout.stages):
                    stages.append(set())
                stages[-1].add(command.device_id)
                waiting.append(command)
        if rollout.status.is_final:
            return stages
        now_s += 61.0
        if waiting:
            order = waiting.pop()
            report = DeploymentReported(
                order.device_id, order.deployment_id, DeploymentState.SUCCEEDED, now_s, None
            )
            rollout, commands = step(rollout, report, now_s)
        elif rollout.stages[-1].open == 0 and rollout.stages[-1].ended_s is None:
            rollout, commands = step(rollout, Promote(by="anna", reason="the test"), now_s)
        else:
            rollout, commands = step(rollout, Ticked(), now_s)
    raise AssertionError("the rollout does not end")


@given(plans, st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 5))
@settings(max_examples=examples(60), deadline=None)
def test_the_dry_run_names_the_devices_that_each_stage_then_orders(
    plan: Plan, count: int, seed: int, already: int
) -> None:
    devices: dict[str, int | None] = {f"cam-{i}": 1 if i % 3 else None for i in range(count)}
    devices |= {f"done-{i}": 2 for i in range(already)}
    try:
        rollout = created(plan, devices, seed)
    except InvalidPlan:
        return
    told = previewed(rollout, dict.fromkeys(devices, Candidate(ABLE)))
    assert (told.devices, told.left_out) == (count, already)
    slow = msgspec.structs.replace(plan, devices_per_minute=None, concurrency=None)
    assert [set(stage.named) for stage in told.stages] == played(created(slow, devices, seed))
    assert [set(stage.named) for stage in told.stages] == played(rollout)
    assert sum(stage.devices for stage in told.stages) == count


@given(plans, st.integers(1, 60), st.none() | st.floats(0, 500))
def test_estimates_are_sane(plan: Plan, count: int, install_s: float | None) -> None:
    try:
        rollout = created(plan, {f"cam-{i}": 1 for i in range(count)})
    except InvalidPlan:
        return
    told = previewed(rollout, {f"cam-{i}": Candidate(ABLE) for i in range(count)}, install_s)
    for stage, bounds in zip(told.stages, plan.stages, strict=True):
        assert bounds.minimum_bake_s <= stage.expected_s <= stage.longest_s
        assert stage.broadcast_bytes == SIZE
        assert stage.most_bytes == SIZE + stage.devices * SIZE
    if plan.devices_per_minute is not None:
        assert told.stages[-1].expected_s >= (told.stages[-1].devices - 1) * 60 / plan.devices_per_minute
    assert told.obstacles == {}


@pytest.mark.parametrize(
    ("after_s", "bake_s"),
    [((64.0, 70.0), 70.0), ((64.0, 2.0), 64.0), ((1.0, 2.0), 5.0), ((64.0, None), 5.0), ((), 5.0)],
)
def test_a_stage_is_expected_to_bake_until_the_gate_is_forecast_to_pass(
    after_s: tuple[float | None, ...], bake_s: float
) -> None:
    plan = Plan(stages=(Stage(devices="all", minimum_bake_s=5, maximum_bake_s=100),), gate=GATE)
    metrics = tuple(
        MetricForecast(Metric.INFERENCE_ERRORS, "", Expectation.LIKELY, "", passes_after_s=one)
        for one in after_s
    )
    told = preview(
        created(plan, {"cam-1": 1}), {"cam-1": Candidate(ABLE)}, MANIFEST, offer=offer,
        typical_install_s=62.0, forecast=(StageForecast(0, Expectation.LIKELY, 1, 1.0, "", metrics),),
    )  # fmt: skip
    assert told.expected_s == 62.0 + bake_s <= told.longest_s


def test_each_obstacle_is_counted_and_named() -> None:
    plan = Plan(stages=(Stage(devices="all", minimum_bake_s=0, maximum_bake_s=1),), gate=GATE, shadow_s=5)
    shadowing = msgspec.structs.replace(ABLE, obeys_wishes=True)
    candidates = {
        "fine": Candidate(shadowing, {"site": "lyon"}),
        "full": Candidate(msgspec.structs.replace(shadowing, free_bytes=SIZE - 1), {"site": "oslo"}),
        "bare": Candidate(msgspec.structs.replace(shadowing, runtimes={})),
        "old": Candidate(ABLE),
        "held": Candidate(shadowing, is_held=True),
        "loud": Candidate(shadowing, is_quarantined=True),
        "theirs": Candidate(shadowing, claim=Claim("theirs", 4, 0.0, is_ordered=True)),
        "wanted": Candidate(shadowing, claim=Claim("wanted", 5, 7.0, is_ordered=False, is_started=False)),
    }
    told = previewed(created(plan, dict.fromkeys(candidates, 1)), candidates)
    assert {refusal.device_id: refusal.obstacle for refusal in told.refusals} == {
        "full": Obstacle.SPACE,
        "bare": Obstacle.UNSUPPORTED,
        "old": Obstacle.SHADOW,
        "held": Obstacle.HELD,
        "loud": Obstacle.QUARANTINED,
        "theirs": Obstacle.CLAIMED,
        "wanted": Obstacle.CLAIMED,
    }
    obstacles = {refusal.obstacle for refusal in told.refusals}
    assert told.obstacles == dict.fromkeys(obstacles, 1) | {Obstacle.CLAIMED: 2}
    assert {refusal.detail for refusal in told.refusals if refusal.obstacle is Obstacle.CLAIMED} == {
        "Rollout 4 keeps it.",
        "Rollout 5 keeps it if it starts first.",
    }
    assert told.stages[0].strata == {"site": {"lyon": 1, "oslo": 1}}
    assert [(each.variant, each.devices, each.size_bytes) for each in told.variants] == [
        (VARIANT.name, 5, SIZE)
    ]
    assert (told.devices, told.left_out, told.stages[0].devices) == (6, 0, 6), "two stay with others"
    assert "theirs" not in told.stages[0].named
    assert told.most_bytes == SIZE + 5 * SIZE


def test_classes_that_a_stage_leaves_out_are_told_with_how_many_they_are() -> None:
    stages = tuple(Stage(devices=n, minimum_bake_s=0, maximum_bake_s=1) for n in (1, "30%", "all"))
    devices: dict[str, int | None] = {f"cam-{i}": 1 for i in range(10)}
    told = previewed(
        created(Plan(stages=stages, gate=GATE), devices), dict.fromkeys(devices, Candidate(ABLE))
    )
    assert told.warnings == (
        "Stage 1: by then it reaches 1 of 3 classes of devices, and nobody of site=1 (3 devices), "
        "site=2 (3 devices). Harm that only these suffer shows later.",
    )
    alike = created(Plan(stages=stages, gate=GATE), {f"door-{i}": 1 for i in range(10)})
    assert previewed(alike, {f"door-{i}": Candidate(ABLE) for i in range(10)}).warnings == ()


def test_of_many_classes_that_are_left_out_the_largest_are_named() -> None:
    stages = tuple(Stage(devices=n, minimum_bake_s=0, maximum_bake_s=1) for n in (2, "all"))
    names = [f"cam-{i}" for i in range(200)]
    strata = {name: f"room={min(i, 100)}" for i, name in enumerate(names)}
    rollout = create(
        number=1, kind=Kind.UPDATE, model="digits", version=2, manifest_sha256="b" * 64, seed=7, now_s=0.0,
        plan=Plan(stages=stages, gate=GATE), devices=dict.fromkeys(names, 1), strata=strata,
    )  # fmt: skip
    (warned,) = unseen(rollout)
    assert warned.stage == 0
    assert warned.text.startswith(
        "Stage 1: by then it reaches 2 of 64 or more classes of devices, and nobody of "
    )
    assert warned.text.count("room=") == 3
    assert "and 59 more. Harm" in warned.text


@settings(max_examples=examples(25))
@given(st.sets(st.sampled_from(DAYS), min_size=1), st.integers(0, 1439), st.integers(1, 1440))
def test_the_mean_wait_for_a_window_is_that_of_every_minute_of_the_week(
    days: set[Day], begin: int, length: int
) -> None:
    end = begin + length if begin + length <= 1440 else begin + length - 1440
    window = Maintenance(
        days=tuple(days),
        from_=f"{begin // 60:02d}:{begin % 60:02d}",
        to=f"{end // 60:02d}:{end % 60:02d}",
    )
    if window.length_minutes != length:  # 1440 minutes that do not begin at 00:00 have no form
        return
    week = 7 * 1440
    opens = sorted((DAYS.index(day) * 1440 + begin) for day in days)
    waits, next_open = 0, opens[0] + week
    is_open = {(start + minute) % week for start in opens for minute in range(length)}
    for minute in range(week - 1, -1, -1):
        next_open = minute if minute in opens else next_open
        waits += 0 if minute in is_open else next_open - minute
    assert mean_wait_s(window) == pytest.approx(60.0 * waits / week, rel=0.01, abs=60.0)


def test_a_window_and_approvals_are_told_with_the_time_that_a_rollout_takes() -> None:
    stages = tuple(
        Stage(devices=n, minimum_bake_s=3600, maximum_bake_s=7200, approval=n == "all", name=name)
        for n, name in ((1, "canary"), ("all", "rest"))
    )
    window = Maintenance(days=(Day.SUN,), from_="08:00", to="20:00")
    bare = Plan(stages=stages, gate=GATE, deployment_timeout_s=8 * 86400.0)
    plan = msgspec.structs.replace(bare, maintenance=window)
    devices: dict[str, int | None] = dict.fromkeys(("cam-1", "cam-2"), 1)
    told, without = (
        previewed(created(one, devices), dict.fromkeys(devices, Candidate(ABLE))) for one in (plan, bare)
    )
    assert mean_wait_s(window) == pytest.approx(6.5**2 / 14 * 86400.0)
    assert (told.expected_s, told.longest_s) == (without.expected_s, without.longest_s)
    assert told.waits == (
        "Not counted in what is expected: each stage waits for the maintenance window, 3.0 d on average from "
        "any time of the week, up to 6.6 d.",
        "Not counted: how long people take to approve of Stage 2 (rest).",
    )
    assert without.waits == told.waits[1:]


def test_names_are_bounded_unless_all_are_asked_for() -> None:
    plan = Plan(stages=(Stage(devices="all", minimum_bake_s=0, maximum_bake_s=1),), gate=GATE)
    candidates = {f"cam-{i}": Candidate(ABLE, is_held=True) for i in range(50)}
    rollout = created(plan, dict.fromkeys(candidates, 1))
    told = preview(rollout, candidates, MANIFEST, offer=offer, typical_install_s=None)
    assert len(told.stages[0].named) == len(told.refusals) == MAX_NAMED
    assert told.obstacles == {Obstacle.HELD: 50}


def test_of_a_choice_by_size_the_first_alone_is_fetched() -> None:
    plan = Plan(stages=(Stage(devices="all", minimum_bake_s=0, maximum_bake_s=1),), gate=GATE)
    rollout = created(plan, {"cam-1": 1})
    told = preview(
        rollout, {"cam-1": Candidate(ABLE)}, MANIFEST, typical_install_s=None,
        offer=lambda _, __: Offer(VARIANT.name, (VARIANT.name,), VariantPolicy.SMALLEST),
    )  # fmt: skip
    assert told.variants[0].variant == VARIANT.name


claims = st.lists(
    st.builds(
        Claim,
        st.sampled_from([f"cam-{i}" for i in range(6)]),
        st.integers(1, 3),
        st.integers(-1, 1),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda claim: claim.device_id,
)


@given(st.sets(st.sampled_from([f"cam-{i}" for i in range(6)])), st.integers(-1, 1), claims)
def test_a_device_is_in_one_rollout_whatever_reaches_it(
    members: set[str], priority: int, held: list[Claim]
) -> None:
    met = [claim for claim in held if claim.device_id in members]
    try:
        settled = settle_claims(members, priority, held)
    except InvalidPlan as error:
        assert error.field == "priority"
        stays = [claim for claim in met if claim.priority > priority or claim.is_ordered]
        assert any(claim.priority == priority for claim in met) or len(stays) == len(members)
        return
    assert not settled.taken.keys() & settled.left.keys()
    assert settled.taken.keys() | settled.left.keys() == {claim.device_id for claim in met}
    for claim in met:
        takes = claim.priority < priority and not claim.is_ordered
        assert (claim.device_id in settled.taken) is takes


def test_a_rollout_of_the_preview_was_not_started() -> None:
    plan = Plan(stages=(Stage(devices="all", minimum_bake_s=0, maximum_bake_s=1),), gate=GATE)
    rollout = created(plan, {"cam-1": 1})
    previewed(rollout, {"cam-1": Candidate(ABLE)})
    assert (rollout.status, rollout.revision) == (Status.CREATED, 0)
