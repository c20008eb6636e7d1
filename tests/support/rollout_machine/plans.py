"""What operators ask for in the machine: plans, and words that fit where a rollout stands."""

from __future__ import annotations

from hypothesis import strategies as st

from fleet.protocol.maintenance import Day, Maintenance, Mode
from fleet.rollout.events import Abort, Approve, Event, Pause, Promote, Resume
from fleet.rollout.plans.plan import (
    Gate,
    Membership,
    Metric,
    MetricGate,
    OnFail,
    OnInconclusive,
    Plan,
    Retries,
    Stage,
)
from fleet.rollout.state.rollout import Rollout, Status
from tests.support.rollouts import LABELS

MARKS = MetricGate(metric=Metric.LATENCY, quantile=0.5, ratio=2.0, budget_us=1000.0)
"""Lets evidence tell which windows were counted, see `tests.support.rollout_machine.counted`."""
METRICS = (LABELS, MARKS)
NIGHT = Maintenance((Day.FRI,), from_="22:00", to="02:00")

FIRST_PLAN = Plan(
    stages=(Stage(devices="all", minimum_bake_s=0.0, maximum_bake_s=1e6),),
    gate=Gate(maximum_failed_share=0.9, metrics=METRICS),
)
"""By which devices come to the version that they have before anything else happens."""


def _stages(sizes: tuple[int | str, ...], asks: int | None, bake_s: float) -> tuple[Stage, ...]:
    """Return stages of which one asks for approval."""
    return tuple(
        Stage(devices=size, minimum_bake_s=bake_s, maximum_bake_s=60.0, approval=number == asks)
        for number, size in enumerate(sizes)
    )


PLANS = st.fixed_dictionaries(
    {
        "stages": st.tuples(
            st.sampled_from([(1, "50%", "all"), (1, "all"), ("all",), (2, "all")]),
            st.sampled_from([None, None, 0, 1]),
            st.sampled_from([20.0, 5.0]),
        ).map(lambda drawn: _stages(*drawn)),
        "gate": st.sampled_from([0.4, 0.0, 0.9]).map(
            lambda share: Gate(maximum_failed_share=share, metrics=METRICS)
        ),
        "deployment_timeout_s": st.just(100.0),
        "on_fail": st.sampled_from(OnFail),
        "on_inconclusive": st.sampled_from(OnInconclusive),
        "devices_per_minute": st.sampled_from([None, None, 6.0]),
        "concurrency": st.sampled_from([None, None, 2]),
        "retries": st.sampled_from([Retries(attempts=2, backoff_s=4.0), Retries()]),
        "rollback_devices_per_minute": st.sampled_from([None, 12.0]),
        "membership": st.sampled_from([Membership.CONTINUOUS, Membership.SNAPSHOT]),
        "priority": st.sampled_from([0, 0, 1, 2]),
        "target": st.sampled_from([None, None, 'site == "lyon"', 'tag("lab")']),
        "maintenance": st.sampled_from([None, None, NIGHT]),
    }
).flatmap(
    lambda fields: st.sampled_from(
        [Mode.SOFT, Mode.FORCED] if fields["maintenance"] is None else [Mode.SOFT]
    ).map(lambda mode: Plan(**fields, mode=mode))
)

ABORTS: list[Event] = [
    Abort("ann", "wrong model", roll_back=False),
    Abort("ann", "wrong model", roll_back=True),
]
WORDS: list[Event] = [
    Pause("ann", "lunch"),
    Resume("ann"),
    Promote("ann", "seen it work"),
    Approve("bob", ""),
    Approve("ann", "myself"),
    *ABORTS,
]


def fitting_words(rollout: Rollout) -> list[Event]:
    """Return what an operator may well say to a rollout that is under way, the likeliest more often."""
    approve, promote = Approve("bob", ""), Promote("ann", "seen it work")
    if rollout.status is Status.ROLLING_BACK:
        return WORDS
    if rollout.awaits_since_s is not None:
        return [approve, approve, approve, Approve("ann", "myself"), promote, *ABORTS]
    word = Resume("ann") if rollout.status is Status.PAUSED else Pause("ann", "lunch")
    return [word, word, promote, promote, *ABORTS]
