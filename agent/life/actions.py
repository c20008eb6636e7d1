"""What the update machine does on each row of its table: the next state, and the effects to carry out.

Each action returns the new state but for its phase, which the table (`agent.life.machine`) sets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import msgspec

from agent.life.terms import (
    CRASH_LIMIT,
    EXPOSED,
    UPDATING,
    Clean,
    Effects,
    Event,
    Failed,
    Fetched,
    Life,
    Ordered,
    Phase,
    Release,
    Report,
    Rest,
    Serve,
    TestPassed,
    Work,
)
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, TrialCrashed


class Step(NamedTuple):
    """What `advance` gives: the state to write down, then the effects to carry out."""

    life: Life
    effects: Effects


Action: TypeAlias = Callable[[Life, Event], Step]


def _changed(life: Life, **changes: object) -> Life:
    return msgspec.structs.replace(life, **changes)


def _take_order(life: Life, order: Ordered, state: DeploymentState, candidate: Release | None) -> Step:
    """End the update that is going on, and begin with a newer order and its first report.

    A hub that was set back to a copy of its store may give a deployment id twice. The first deployment is
    then not reported as canceled: the hub would take that for the end of the second.
    """
    ended: Effects = ()
    if life.candidate is not None:
        ended = (Rest(), Serve(life.active)) if life.phase is Phase.TRIAL else (Rest(),)
        if life.deployment_id != order.deployment_id:
            canceled = Report(life.deployment_id, life.candidate.version, DeploymentState.CANCELED)
            ended = (*ended, canceled)
    taken = _changed(
        life,
        deployment_id=order.deployment_id,
        ordered=order.release,
        candidate=candidate,
        crashes=0,
        running=False,
        alternatives=() if candidate is None else order.alternatives,
        policy=order.policy,
        shadow_s=0 if candidate is None else order.shadow_s,
        maintenance=order.maintenance,
        mode=order.mode,
    )
    return Step(taken, (*ended, Report(order.deployment_id, order.release.version, state)))


def begin(life: Life, event: Event) -> Step:
    """Begin an update with an order for another version."""
    assert isinstance(event, Ordered)
    begun, effects = _take_order(life, event, DeploymentState.DOWNLOADING, event.release)
    return Step(begun, (*effects, Work()))


def have_it(life: Life, event: Event) -> Step:
    """Report an order for what is active as carried out."""
    assert isinstance(event, Ordered)
    done, effects = _take_order(life, event, DeploymentState.SUCCEEDED, None)
    return Step(done, (*effects, Clean()))


def remove(life: Life, event: Event) -> Step:
    """Let go of the model."""
    del event
    if not life.deployment_id:
        return Step(Life(), (Clean(),))
    report = Report(life.deployment_id, 0, DeploymentState.REMOVED)
    return Step(Life(), (Rest(), Serve(None), report, Clean()))


def proceed(state: DeploymentState, **changes: object) -> Action:
    """Go on to the next phase of the update and report it."""

    def action(life: Life, event: Event) -> Step:
        del event
        assert life.candidate is not None
        report = Report(life.deployment_id, life.candidate.version, state)
        return Step(_changed(life, **changes), (report, Work()))

    return action


def verify(life: Life, event: Event) -> Step:
    """Go on with the variants that were fetched."""
    assert isinstance(event, Fetched)
    assert life.candidate is not None
    if event.kept:
        first, *others = event.kept
        life = _changed(life, candidate=variant(life, first), alternatives=tuple(others))
    return proceed(DeploymentState.VERIFYING)(life, event)


def variant(life: Life, name: str) -> Release | None:
    """Return the candidate in another variant; in its own for an empty name."""
    if life.candidate is None or not name:
        return life.candidate
    return msgspec.structs.replace(life.candidate, variant=name)


def test(life: Life, event: Event) -> Step:
    """Let the candidate run for the first time."""
    del event
    return Step(_changed(life, running=True), (Work(),))


def compare(life: Life, event: Event) -> Step:
    """Let the candidate compute beside the active version, which goes on answering."""
    tested, report = _settle(life, event, DeploymentState.SHADOW)
    return Step(tested, (report, Work()))


def try_out(life: Life, event: Event) -> Step:
    """Let the candidate answer, on probation."""
    tested, report = _settle(life, event, DeploymentState.TRIAL)
    return Step(tested, (Serve(tested.candidate), report, Work()))


def _settle(life: Life, event: Event, state: DeploymentState) -> tuple[Life, Report]:
    """Go on with the variant that was chosen."""
    assert life.candidate is not None
    chosen = variant(life, event.variant if isinstance(event, TestPassed) else "")
    report = Report(life.deployment_id, life.candidate.version, state)
    return _changed(life, candidate=chosen, alternatives=(), crashes=0, running=True), report


def keep(life: Life, event: Event) -> Step:
    """Of all variants, the one that was committed before is chosen again."""
    del event
    assert life.active is not None
    report = Report(life.deployment_id, life.active.version, DeploymentState.SUCCEEDED)
    kept = _changed(life, candidate=None, alternatives=(), crashes=0, running=False, shadow_s=0)
    return Step(kept, (Rest(), report, Clean()))


def try_another(life: Life, event: Event) -> Step:
    """Let the candidate go, with its cause, and begin with the next variant that the order allows."""
    assert life.candidate is not None
    cause = event.cause if isinstance(event, Failed) else _crashed(life.phase, 1)
    report = Report(life.deployment_id, life.candidate.version, DeploymentState.DOWNLOADING, cause)
    another, *others = life.alternatives
    begun = _changed(
        life, candidate=variant(life, another), alternatives=tuple(others), crashes=0, running=False
    )
    return Step(begun, (Rest(), Serve(life.active), report, Work()))


def commit(life: Life, event: Event) -> Step:
    """Make the candidate the active version."""
    del event
    assert life.candidate is not None
    report = Report(life.deployment_id, life.candidate.version, DeploymentState.SUCCEEDED)
    committed = _changed(
        life,
        active=life.candidate,
        previous=life.active,
        candidate=None,
        crashes=0,
        running=False,
        shadow_s=0,
    )
    return Step(committed, (Rest(), report, Clean()))


def give_up(life: Life, event: Event) -> Step:
    """Let the candidate go, with its cause, and serve the active version."""
    assert life.candidate is not None
    if isinstance(event, Failed):
        cause, refused = event.cause, event.refused
    else:
        cause, refused = _crashed(life.phase, CRASH_LIMIT), False
    if life.phase is Phase.TRIAL:
        state = DeploymentState.ROLLED_BACK
    else:
        state = DeploymentState.REJECTED if refused else DeploymentState.FAILED
    report = Report(life.deployment_id, life.candidate.version, state, cause)
    given_up = _changed(life, candidate=None, alternatives=(), crashes=0, running=False, shadow_s=0)
    return Step(given_up, (Rest(), Serve(life.active), report, Clean()))


def _crashed(phase: Phase, times: int) -> Cause:
    return TrialCrashed(f"The agent ended {times} time(s) during {_RUNS_IN[phase]}.").cause()


_RUNS_IN = {Phase.TESTING: "its self-test", Phase.SHADOW: "its shadow", Phase.TRIAL: "its trial"}


def resume(life: Life, event: Event) -> Step:
    """Go on after a start; one that finds the candidate running is a crash."""
    del event
    if life.running:
        life = _changed(life, crashes=life.crashes + 1)
    if life.phase in EXPOSED:
        life = _changed(life, running=True)
    work = (Work(),) if life.phase in UPDATING else ()
    return Step(life, (Serve(life.serving), *work))


def end_orderly(life: Life, event: Event) -> Step:
    """Stop without counting a crash."""
    del event
    return Step(_changed(life, running=False), (Rest(),))


def fall_back(life: Life, event: Event) -> Step:
    """Serve the version before the damaged one; an update that is going on goes on."""
    del event
    return Step(_changed(life, active=life.previous, previous=None), (Serve(life.previous),))


def repair(life: Life, event: Event) -> Step:
    """Fall back, and get the damaged version again under the order that it came with."""
    fallen, effects = fall_back(life, event)
    assert life.active is not None
    return Step(_changed(fallen, candidate=life.active, crashes=0), (*effects, Clean(), Work()))
