"""Groups: whatever one device of many claims, it decides nothing.

The first test has no tolerance: what it says follows for every claim, not for most.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.records import TelemetryWindow
from fleet.rollout.events import DevicesJoined, EvidenceObserved, Joiner
from fleet.rollout.gates.evidence import Arm, Evidence, Tally, gathered
from fleet.rollout.gates.gate import MetricVerdict, Outcome, Verdict, judge
from fleet.rollout.gates.groups import GROUPS, LEAST_DEVICES, group_of
from fleet.rollout.gates.windows import MOST_ANSWERS
from fleet.rollout.plans.plan import Membership, Metric, MetricGate
from fleet.rollout.state.rollout import StageProgress
from tests.support.rollouts import NEW, OLD, Campaign, plan, restored, stored, window

ERRORS = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.01, limit=0.05)
CANARIES, CONTROLS, REQUESTS = 16, 40, 1000
MARGIN_OF_ROUNDING = 1e-6


def arm(tallies: list[Tally]) -> Arm:
    """Return devices that said one thing each."""
    whole = Tally()
    for tally in tallies:
        whole = whole.plus(tally)
    return Arm(len(tallies), len(tallies), 0, (whole,))


def evidence_of(
    canaries: list[Tally], controls: list[Tally], *, classes: int = 2, without: int | None = None
) -> Evidence:
    """Return what devices said, a tally each; classes take turns after every round of the groups.

    Without a group there are no groups: it is what the others say.
    """
    whole = Evidence.empty(1)
    for group in range(GROUPS):
        if group == without:
            continue
        sides = []
        for tallies in (canaries, controls):
            ours = [(place, one) for place, one in enumerate(tallies) if group_of(place) == group]
            by_class = {
                f"class={name}": arm([one for place, one in ours if place // GROUPS % classes == name])
                for name in range(classes)
            }
            sides.append(gathered(by_class, 1))
        part = Evidence(sides[0], sides[1])
        groups = {group: part} if without is None else {}
        whole = whole.plus(msgspec.structs.replace(part, groups=groups).during(0))
    return whole


def judged(evidence: Evidence, *, grouped: tuple[bool, bool] = (True, True)) -> Verdict:
    return judge(plan(metrics=(ERRORS,)), (evidence,), has_control=True, heard=1, expected=1, grouped=grouped)


def metric(evidence: Evidence) -> MetricVerdict:
    return judged(evidence).metrics[0]


def drawn(rng: np.random.Generator, share: float, devices: int) -> list[Tally]:
    return [Tally.of(int(bad), REQUESTS) for bad in rng.binomial(REQUESTS, share, devices)]


CLAIMS = st.builds(
    lambda windows, total, share: [Tally.of(round(total * share), total)] * windows,
    st.sampled_from([1, 5, 300]),
    st.sampled_from([100, 5_000, MOST_ANSWERS]),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)


def claimed(claims: list[Tally]) -> Tally:
    return arm(claims).tallies[0]


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.01, 0.06]),
    CLAIMS,
    st.integers(0, CANARIES - 1),
    st.booleans(),
)
def test_what_one_device_claims_never_decides(
    seed: int, harm: float, claims: list[Tally], liar: int, is_canary: bool
) -> None:
    """A verdict of FAIL or PASS is one that all others give as well, without the group of the device."""
    rng = np.random.default_rng(seed)
    sides = [drawn(rng, 0.02 + harm, CANARIES), drawn(rng, 0.02, CONTROLS)]
    sides[0 if is_canary else 1][liar] = claimed(claims)
    found = metric(evidence_of(*sides))
    alone = metric(evidence_of(*sides, without=group_of(liar)))
    if found.outcome is Outcome.FAIL:
        assert alone.harm >= found.harm * (1.0 - MARGIN_OF_ROUNDING)
        assert alone.outcome is Outcome.FAIL
    if found.outcome is Outcome.PASS:
        assert alone.safety >= found.safety * (1.0 - MARGIN_OF_ROUNDING)
        assert alone.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("is_canary", "share", "harm"),
    [(True, 1.0, 0.0), (True, 0.0, 0.03), (False, 1.0, 0.03)],
    ids=["a bad canary of a good version", "a good canary of a bad one", "a bad control of a bad one"],
)
def test_without_groups_one_device_does_decide(is_canary: bool, share: float, harm: float) -> None:
    """The fault that groups mend."""
    rng = np.random.default_rng(12)
    sides = [drawn(rng, 0.01 + harm, CANARIES), drawn(rng, 0.01, CONTROLS)]
    sides[0 if is_canary else 1][3] = claimed([Tally.of(round(MOST_ANSWERS * share), MOST_ANSWERS)] * 300)
    evidence, wrong = evidence_of(*sides, classes=1), Outcome.PASS if harm else Outcome.FAIL
    assert judged(evidence).outcome is Outcome.INCONCLUSIVE
    assert judged(msgspec.structs.replace(evidence, groups={})).outcome is wrong


def test_groups_cost_an_eighth_of_the_evidence_and_no_verdict() -> None:
    rng = np.random.default_rng(13)
    for harm, outcome in ((0.0, Outcome.PASS), (0.06, Outcome.FAIL)):
        evidence = evidence_of(drawn(rng, 0.01 + harm, CANARIES), drawn(rng, 0.01, CONTROLS))
        assert judged(evidence).outcome is outcome
        assert judged(msgspec.structs.replace(evidence, groups={})).outcome is outcome


def test_a_class_is_not_named_for_what_one_device_claims() -> None:
    rng = np.random.default_rng(17)
    canaries, controls = drawn(rng, 0.01, 3 * CANARIES), drawn(rng, 0.01, 3 * CONTROLS)
    worse = drawn(rng, 0.2, 3 * CANARIES)
    canaries = [worse[n] if n // GROUPS % 3 == 0 else one for n, one in enumerate(canaries)]
    canaries[GROUPS + 3] = claimed([Tally.of(MOST_ANSWERS, MOST_ANSWERS)])
    evidence = evidence_of(canaries, controls, classes=3)
    assert metric(evidence).outcome is Outcome.FAIL
    assert metric(evidence).classes == ("class=0",)


def test_one_group_alone_proves_nothing() -> None:
    rng = np.random.default_rng(14)
    canaries = [Tally() if group_of(place) else one for place, one in enumerate(drawn(rng, 0.9, CANARIES))]
    evidence = evidence_of(canaries, drawn(rng, 0.01, CONTROLS))
    assert judged(evidence).outcome is Outcome.INCONCLUSIVE
    assert judged(msgspec.structs.replace(evidence, groups={})).outcome is Outcome.FAIL


@pytest.mark.parametrize("harm", [0.0, 0.06])
def test_a_stored_group_that_is_more_than_the_whole_leaves_nothing_to_decide_by(harm: float) -> None:
    rng = np.random.default_rng(15)
    evidence = evidence_of(drawn(rng, 0.01 + harm, CANARIES), drawn(rng, 0.01, CONTROLS))
    more = evidence.groups[2].canary.plus(evidence.canary)
    groups = evidence.groups | {2: msgspec.structs.replace(evidence.groups[2], canary=more)}
    assert judged(msgspec.structs.replace(evidence, groups=groups)).outcome is Outcome.INCONCLUSIVE


FLEET = {f"cam-{number}": 1 for number in range(3 * LEAST_DEVICES)}


def campaign(canaries: int) -> Campaign:
    slow = plan(canaries, "all", metrics=(ERRORS,), minimum_bake_s=1e6, maximum_bake_s=1e7)
    running = Campaign(slow, devices=FLEET)
    running.succeed(0)
    return running


def stage_of(running: Campaign) -> StageProgress:
    return running.rollout.stages[0]


def test_the_engine_tells_groups_apart() -> None:
    running = campaign(LEAST_DEVICES)
    running.observe(rounds=2)
    evidence = stage_of(running).evidence
    assert sorted(evidence.groups) == list(range(GROUPS))
    for side, devices in (("canary", LEAST_DEVICES), ("control", 2 * LEAST_DEVICES)):
        arms = [getattr(part, side) for part in evidence.groups.values()]
        assert sum(one.devices for one in arms) == devices == getattr(evidence, side).devices
        assert sum(one.tallies[0].total for one in arms) == getattr(evidence, side).tallies[0].total


@pytest.mark.parametrize("is_canary", [True, False], ids=["canaries", "controls"])
def test_of_a_side_of_a_few_nobody_is_left_out(is_canary: bool) -> None:
    rng = np.random.default_rng(16)
    sides = [drawn(rng, 0.01, CANARIES), drawn(rng, 0.01, CONTROLS)]
    sides[0 if is_canary else 1][1:] = [Tally() for _ in sides[0 if is_canary else 1][1:]]
    sides[0 if is_canary else 1][0] = Tally.of(0 if is_canary else 200, 10_000)
    evidence = evidence_of(*sides, classes=1)
    of_many = judged(evidence)
    of_few = judged(evidence, grouped=(not is_canary, is_canary))
    assert of_many.metrics[0].safety == 1.0  # nothing is left of that side
    assert of_few.metrics[0].safety > 1.0


def test_where_devices_join_a_few_one_that_lied_before_decides_nothing() -> None:
    """What was heard while there were nine canaries can be left out as soon as there are ten."""
    few = LEAST_DEVICES - 1
    growing = msgspec.structs.replace(
        plan("30%", "all", metrics=(ERRORS,), minimum_bake_s=10.0, maximum_bake_s=1e7),
        membership=Membership.CONTINUOUS,
    )
    running = Campaign(growing, devices={f"cam-{number}": 1 for number in range(3 * few)})
    running.succeed(0)
    liar = running.cohort(0)[0].device_id
    clean = window(NEW, running.now_s, predictions=MOST_ANSWERS, wrong=0)
    running.now_s += 2.0
    running.do(EvidenceObserved(((liar, clean),)))
    assert stage_of(running).evidence.canary.windows == 1
    running.do(DevicesJoined(tuple(Joiner(f"new-{number}", 1) for number in range(12))))
    running.succeed(0)
    assert len(running.cohort(0)) >= LEAST_DEVICES
    for _ in range(10):
        said = [
            (one.device_id, window(digest, running.now_s, predictions=20 - errors, wrong=0, errors=errors))
            for one in running.rollout.deployments
            for digest, errors in [(NEW, 12) if one.stage == 0 else (OLD, 1)]
            if one.device_id != liar
        ]
        running.now_s += 2.0
        running.do(EvidenceObserved(tuple(said)))
        assert running.verdict().outcome is not Outcome.PASS
    assert len(running.rollout.stages) == 1


def test_a_stage_that_was_stored_before_there_were_groups_goes_on() -> None:
    """What it had heard until then stays in, whichever group is left out of the rest."""
    running = campaign(LEAST_DEVICES)
    running.observe(rounds=2)
    stage = stage_of(running)
    before = msgspec.structs.replace(stage.evidence, groups={})
    old = msgspec.structs.replace(running.rollout, stages=(msgspec.structs.replace(stage, evidence=before),))
    running.rollout = restored(stored(old))
    assert stage_of(running).evidence == before != stage.evidence
    running.observe(rounds=1)
    evidence = stage_of(running).evidence
    assert evidence.canary.windows == 3 * LEAST_DEVICES
    since = sum(part.canary.windows for part in evidence.groups.values())
    assert since == evidence.canary.windows - before.canary.windows == LEAST_DEVICES
    assert running.verdict().outcome is not Outcome.ERROR


@pytest.mark.parametrize("is_canary", [True, False], ids=["canary", "control"])
def test_in_the_engine_one_device_that_lies_decides_nothing(is_canary: bool) -> None:
    """A canary that says that all of its requests fail, or a control that none do; all others say 3 %."""
    running = campaign(LEAST_DEVICES)
    liar = running.cohort(0 if is_canary else 1)[4].device_id
    for _ in range(5):
        started_s = running.now_s
        running.now_s += 2.0
        running.do(EvidenceObserved(tuple(_said(running, liar, started_s))))
        assert running.verdict().outcome in {Outcome.PASS, Outcome.INCONCLUSIVE}
    assert restored(stored(running.rollout)).stages[0].evidence == stage_of(running).evidence


def _said(running: Campaign, liar: str, started_s: float) -> list[tuple[str, TelemetryWindow]]:
    said = []
    for one in running.rollout.deployments:
        digest = NEW if one.stage == 0 else OLD
        if one.device_id == liar:
            errors = MOST_ANSWERS if one.stage == 0 else 0
            lie = window(digest, started_s, predictions=MOST_ANSWERS - errors, wrong=0, errors=errors)
            said += [(liar, lie)] * 20
        else:
            said.append((one.device_id, window(digest, started_s, predictions=194, wrong=0, errors=6)))
    return said
