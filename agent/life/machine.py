"""The update machine: what a device does with orders for one model, as one transition table.

Pure: `advance` takes a state and an event and gives the next state and the effects to carry out. It knows
no clock, file or network. The shell (`agent.life.shell`) writes the state down before it carries out any
effect, so a power cut at any instant leaves a state from which `Restarted` goes on.
``docs/reference/device-life.md`` holds the diagram that `agent.life.diagram` draws from `TABLE`.

What an event means depends on the phase; a row of the table says where it leads. **An event without a row
is late or double, and changes nothing.** Events of work carry the deployment that they were done for: those
of a deployment that was superseded change nothing either.

====================  ======================================================================================
invariant             why
====================  ======================================================================================
serving               the candidate in TRIAL, else the active version: only one that passed its self-test here
candidate             there is one exactly in the phases of an update
variant               the candidate's may change until its self-test passed, among those that were ordered
active                changes only to a candidate whose trial passed, or back to ``previous`` when damaged
one end               a deployment gets at most one terminal report, and a failed one is not tried again;
                      only the repair of a damaged version is reported once more
====================  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import msgspec

from agent.life.terms import (
    EXPOSED,
    PREPARING,
    RESTING,
    UPDATING,
    Clean,
    Cleared,
    Damaged,
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
    Restarted,
    Serve,
    ShadowPassed,
    Stopped,
    TestPassed,
    TrialPassed,
    Verified,
    Withdrawn,
    Work,
)
from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, TrialCrashed

CRASH_LIMIT = 3
"""A candidate during which the process ended this often is given up before it is loaded again."""


class Step(NamedTuple):
    """What `advance` gives: the state to write down, then the effects to carry out."""

    life: Life
    effects: Effects


# Actions -----------------------------------------------------------------------------------------
# Each returns the new state but for its phase, which the table sets, and the effects.

_Action: TypeAlias = Callable[[Life, Event], Step]
_Guard: TypeAlias = Callable[[Life, Event], bool]


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
    )
    return Step(taken, (*ended, Report(order.deployment_id, order.release.version, state)))


def _begin(life: Life, event: Event) -> Step:
    assert isinstance(event, Ordered)
    begun, effects = _take_order(life, event, DeploymentState.DOWNLOADING, event.release)
    return Step(begun, (*effects, Work()))


def _have_it(life: Life, event: Event) -> Step:
    assert isinstance(event, Ordered)
    done, effects = _take_order(life, event, DeploymentState.SUCCEEDED, None)
    return Step(done, (*effects, Clean()))


def _remove(life: Life, event: Event) -> Step:
    del event
    if not life.deployment_id:
        return Step(Life(), (Clean(),))
    report = Report(life.deployment_id, 0, DeploymentState.REMOVED)
    return Step(Life(), (Rest(), Serve(None), report, Clean()))


def _proceed(state: DeploymentState, **changes: object) -> _Action:
    """Go on to the next phase of the update and report it."""

    def action(life: Life, event: Event) -> Step:
        del event
        assert life.candidate is not None
        report = Report(life.deployment_id, life.candidate.version, state)
        return Step(_changed(life, **changes), (report, Work()))

    return action


def _verify(life: Life, event: Event) -> Step:
    """Go on with the variants that were fetched."""
    assert isinstance(event, Fetched)
    assert life.candidate is not None
    if event.kept:
        first, *others = event.kept
        life = _changed(life, candidate=_variant(life, first), alternatives=tuple(others))
    return _proceed(DeploymentState.VERIFYING)(life, event)


def _variant(life: Life, name: str) -> Release | None:
    """Return the candidate in another variant; in its own for an empty name."""
    if life.candidate is None or not name:
        return life.candidate
    return msgspec.structs.replace(life.candidate, variant=name)


def _test(life: Life, event: Event) -> Step:
    del event
    return Step(_changed(life, running=True), (Work(),))


def _compare(life: Life, event: Event) -> Step:
    tested, report = _settle(life, event, DeploymentState.SHADOW)
    return Step(tested, (report, Work()))


def _try(life: Life, event: Event) -> Step:
    tested, report = _settle(life, event, DeploymentState.TRIAL)
    return Step(tested, (Serve(tested.candidate), report, Work()))


def _settle(life: Life, event: Event, state: DeploymentState) -> tuple[Life, Report]:
    """Go on with the variant that was chosen."""
    assert life.candidate is not None
    chosen = _variant(life, event.variant if isinstance(event, TestPassed) else "")
    report = Report(life.deployment_id, life.candidate.version, state)
    return _changed(life, candidate=chosen, alternatives=(), crashes=0, running=True), report


def _keep(life: Life, event: Event) -> Step:
    """Of all variants, the one that was committed before is chosen again."""
    del event
    assert life.active is not None
    report = Report(life.deployment_id, life.active.version, DeploymentState.SUCCEEDED)
    kept = _changed(life, candidate=None, alternatives=(), crashes=0, running=False, shadow_s=0)
    return Step(kept, (Rest(), report, Clean()))


def _try_another(life: Life, event: Event) -> Step:
    """Let the candidate go, with its cause, and begin with the next variant that the order allows."""
    assert life.candidate is not None
    cause = event.cause if isinstance(event, Failed) else _crashed(life.phase, 1)
    report = Report(life.deployment_id, life.candidate.version, DeploymentState.DOWNLOADING, cause)
    another, *others = life.alternatives
    begun = _changed(
        life, candidate=_variant(life, another), alternatives=tuple(others), crashes=0, running=False
    )
    return Step(begun, (Rest(), Serve(life.active), report, Work()))


def _commit(life: Life, event: Event) -> Step:
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


def _give_up(life: Life, event: Event) -> Step:
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


def _resume(life: Life, event: Event) -> Step:
    del event
    if life.running:
        life = _changed(life, crashes=life.crashes + 1)
    if life.phase in EXPOSED:
        life = _changed(life, running=True)
    work = (Work(),) if life.phase in UPDATING else ()
    return Step(life, (Serve(life.serving), *work))


def _end_orderly(life: Life, event: Event) -> Step:
    del event
    return Step(_changed(life, running=False), (Rest(),))


def _fall_back(life: Life, event: Event) -> Step:
    """Serve the version before the damaged one; an update that is going on goes on."""
    del event
    return Step(_changed(life, active=life.previous, previous=None), (Serve(life.previous),))


def _repair(life: Life, event: Event) -> Step:
    """Fall back, and get the damaged version again under the order that it came with."""
    fallen, effects = _fall_back(life, event)
    assert life.active is not None
    return Step(_changed(fallen, candidate=life.active, crashes=0), (*effects, Clean(), Work()))


# Guards ------------------------------------------------------------------------------------------


def _always(life: Life, event: Event) -> bool:
    del life, event
    return True


def _new(life: Life, event: Event) -> bool:
    """Tell whether this is not the last order once more; its id alone does not say so, see `_take_order`."""
    if not isinstance(event, Ordered):
        return False
    return event.deployment_id != life.deployment_id or life.ordered not in {event.release, None}


def _new_and_active(life: Life, event: Event) -> bool:
    if not _new(life, event) or not isinstance(event, Ordered):
        return False
    is_choice = event.alternatives and event.policy is not VariantPolicy.SMALLEST
    return event.release == life.active and not is_choice


def _another_is_offered(life: Life, event: Event) -> bool:
    """Tell whether the next variant is to be tried: they are tried in turn where nothing is measured."""
    ended = isinstance(event, Failed) or life.running
    return ended and life.policy is VariantPolicy.SMALLEST and bool(life.alternatives)


def _chose_active(life: Life, event: Event) -> bool:
    return isinstance(event, TestPassed) and _variant(life, event.variant) == life.active


def _shadow_is_ordered(life: Life, event: Event) -> bool:
    del event
    return life.shadow_s > 0 and life.active is not None


def _last_crash(life: Life, event: Event) -> bool:
    del event
    return life.running and life.crashes + 1 >= CRASH_LIMIT


def _is_active(life: Life, event: Event) -> bool:
    return isinstance(event, Damaged) and event.release == life.active


# The table ---------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One row: in this phase, this event, if the guard holds, leads to that phase by this action.

    Attributes:
        sources: Phases that the row is about.
        event: Kind of the event.
        guard: Condition; rows are tried from top to bottom.
        target: The phase that follows; None for the same.
        action: Gives state and effects.
        label: What the diagram says.
    """

    sources: tuple[Phase, ...]
    event: type[Event]
    guard: _Guard
    target: Phase | None
    action: _Action
    label: str


_ALL = tuple(Phase)
_P = Phase
_S = DeploymentState

TABLE: tuple[Row, ...] = (
    Row(_ALL, Ordered, _new_and_active, _P.COMMITTED, _have_it, "ordered what is active"),
    Row(_ALL, Ordered, _new, _P.DOWNLOADING, _begin, "ordered"),
    Row(_ALL, Withdrawn, _always, _P.IDLE, _remove, "withdrawn"),
    Row((_P.DOWNLOADING,), Fetched, _always, _P.VERIFYING, _verify, "fetched"),
    Row((_P.VERIFYING,), Verified, _always, _P.STAGED, _proceed(_S.STAGED), "verified"),
    Row((_P.STAGED,), Cleared, _always, _P.TESTING, _test, "cleared"),
    Row((_P.TESTING,), TestPassed, _chose_active, _P.COMMITTED, _keep, "active variant chosen"),
    Row((_P.TESTING,), TestPassed, _shadow_is_ordered, _P.SHADOW, _compare, "passed, shadow ordered"),
    Row((_P.TESTING,), TestPassed, _always, _P.TRIAL, _try, "self-test passed"),
    Row((_P.SHADOW,), ShadowPassed, _always, _P.TRIAL, _try, "shadow over"),
    Row((_P.TRIAL,), TrialPassed, _always, _P.COMMITTED, _commit, "trial passed"),
    Row((_P.TESTING,), Failed, _another_is_offered, _P.DOWNLOADING, _try_another, "failed, next variant"),
    Row((_P.TESTING,), Restarted, _another_is_offered, _P.DOWNLOADING, _try_another, "crash, next variant"),
    Row((*PREPARING, _P.TESTING, _P.SHADOW), Failed, _always, _P.REJECTED, _give_up, "failed"),
    Row((_P.TRIAL,), Failed, _always, _P.ROLLED_BACK, _give_up, "failed"),
    Row((_P.TESTING, _P.SHADOW), Restarted, _last_crash, _P.REJECTED, _give_up, "third crash"),
    Row((_P.TRIAL,), Restarted, _last_crash, _P.ROLLED_BACK, _give_up, "third crash"),
    Row(_ALL, Restarted, _always, None, _resume, "restarted"),
    Row(EXPOSED, Stopped, _always, None, _end_orderly, "stopped"),
    Row(RESTING, Damaged, _is_active, _P.DOWNLOADING, _repair, "active version damaged"),
    Row(UPDATING, Damaged, _is_active, None, _fall_back, "active version damaged"),
)


_OF_WORK = (Fetched, Verified, Cleared, TestPassed, ShadowPassed, TrialPassed, Failed)


def advance(life: Life, event: Event) -> Step:
    """Return what follows from an event.

    Args:
        life: The state now.
        event: What happened.

    Returns:
        The next state and the effects, which may be carried out once the state is written down. The same
        state and no effects if the event is late, double or about a superseded deployment.
    """
    if isinstance(event, _OF_WORK) and event.deployment_id != life.deployment_id:
        return Step(life, ())
    for row in TABLE:
        if isinstance(event, row.event) and life.phase in row.sources and row.guard(life, event):
            step = row.action(life, event)
            target = life.phase if row.target is None else row.target
            return Step(_changed(step.life, phase=target), step.effects)
    return Step(life, ())
