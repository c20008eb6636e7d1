"""The update machine: what a device does with orders for one model, as one transition table.

Pure: `advance` takes a state and an event and gives the next state and the effects to carry out. It knows
no clock, file or network. The shell (`agent.life.shell`) writes the state down before it carries out any
effect, so a power cut at any instant leaves a state from which `Restarted` goes on.
What is done on a row stands in `agent.life.actions`. ``docs/reference/device-life.md`` holds the diagram that
`agent.life.diagram` draws from `TABLE`.

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

from msgspec.structs import replace

from agent.life import actions
from agent.life.actions import Step
from agent.life.terms import (
    CRASH_LIMIT,
    EXPOSED,
    PREPARING,
    RESTING,
    UPDATING,
    Cleared,
    Damaged,
    Event,
    Failed,
    Fetched,
    Life,
    Ordered,
    Phase,
    Restarted,
    ShadowPassed,
    Stopped,
    TestPassed,
    TrialPassed,
    Verified,
    Withdrawn,
)
from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.deployment import DeploymentState

# Guards ------------------------------------------------------------------------------------------

Guard: TypeAlias = Callable[[Life, Event], bool]


def _always(life: Life, event: Event) -> bool:
    del life, event
    return True


def _new(life: Life, event: Event) -> bool:
    """Tell whether this is not the last order once more; its id alone does not say so."""
    if not isinstance(event, Ordered):
        return False
    return event.deployment_id != life.deployment_id or life.ordered not in {event.release, None}


def _new_and_active(life: Life, event: Event) -> bool:
    if not _new(life, event) or not isinstance(event, Ordered):
        return False
    is_choice = event.alternatives and event.policy is not VariantPolicy.SMALLEST
    return event.release == life.active and not is_choice


def _another_offered(life: Life, event: Event) -> bool:
    """Tell whether the next variant is to be tried: they are tried in turn where nothing is measured."""
    ended = isinstance(event, Failed) or life.running
    return ended and life.policy is VariantPolicy.SMALLEST and bool(life.alternatives)


def _chose_active(life: Life, event: Event) -> bool:
    return isinstance(event, TestPassed) and actions.variant(life, event.variant) == life.active


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
    guard: Guard
    target: Phase | None
    action: actions.Action
    label: str


_ALL = tuple(Phase)
_P = Phase
_S = DeploymentState

TABLE: tuple[Row, ...] = (
    Row(_ALL, Ordered, _new_and_active, _P.COMMITTED, actions.have_it, "ordered what is active"),
    Row(_ALL, Ordered, _new, _P.DOWNLOADING, actions.begin, "ordered"),
    Row(_ALL, Withdrawn, _always, _P.IDLE, actions.remove, "withdrawn"),
    Row((_P.DOWNLOADING,), Fetched, _always, _P.VERIFYING, actions.verify, "fetched"),
    Row((_P.VERIFYING,), Verified, _always, _P.STAGED, actions.proceed(_S.STAGED), "verified"),
    Row((_P.STAGED,), Cleared, _always, _P.TESTING, actions.test, "cleared"),
    Row((_P.TESTING,), TestPassed, _chose_active, _P.COMMITTED, actions.keep, "active variant chosen"),
    Row((_P.TESTING,), TestPassed, _shadow_is_ordered, _P.SHADOW, actions.compare, "passed, shadow ordered"),
    Row((_P.TESTING,), TestPassed, _always, _P.TRIAL, actions.try_out, "self-test passed"),
    Row((_P.SHADOW,), ShadowPassed, _always, _P.TRIAL, actions.try_out, "shadow over"),
    Row((_P.TRIAL,), TrialPassed, _always, _P.COMMITTED, actions.commit, "trial passed"),
    Row(
        (_P.TESTING,),
        Failed,
        _another_offered,
        _P.DOWNLOADING,
        actions.try_another,
        "failed, next variant",
    ),
    Row(
        (_P.TESTING,),
        Restarted,
        _another_offered,
        _P.DOWNLOADING,
        actions.try_another,
        "crash, next variant",
    ),
    Row((*PREPARING, _P.TESTING, _P.SHADOW), Failed, _always, _P.REJECTED, actions.give_up, "failed"),
    Row((_P.TRIAL,), Failed, _always, _P.ROLLED_BACK, actions.give_up, "failed"),
    Row((_P.TESTING, _P.SHADOW), Restarted, _last_crash, _P.REJECTED, actions.give_up, "third crash"),
    Row((_P.TRIAL,), Restarted, _last_crash, _P.ROLLED_BACK, actions.give_up, "third crash"),
    Row(_ALL, Restarted, _always, None, actions.resume, "restarted"),
    Row(EXPOSED, Stopped, _always, None, actions.end_orderly, "stopped"),
    Row(RESTING, Damaged, _is_active, _P.DOWNLOADING, actions.repair, "active version damaged"),
    Row(UPDATING, Damaged, _is_active, None, actions.fall_back, "active version damaged"),
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
            return Step(replace(step.life, phase=target), step.effects)
    return Step(life, ())
