"""The update machine's rules, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.life.diagram import mermaid
from agent.life.machine import CRASH_LIMIT, Step, advance
from agent.life.terms import (
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
    Restarted,
    Serve,
    Stopped,
    TestPassed,
    TrialPassed,
    Verified,
    Withdrawn,
    Work,
)
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.errors import Cause

ONE, TWO, THREE = (Release(number, str(number) * 64, "onnx-fp32") for number in (1, 2, 3))
CAUSE = Cause("digest_mismatch", "Bytes are wrong.")


def play(life: Life, *events: Event) -> Step:
    """Return the state after some events, with the effects of all of them."""
    effects: Effects = ()
    for event in events:
        step = advance(life, event)
        life, effects = step.life, (*effects, *step.effects)
    return Step(life, effects)


def update(deployment_id: str, release: Release) -> tuple[Event, ...]:
    """Return the events of an update that goes well."""
    return (
        Ordered(deployment_id, release),
        Fetched(deployment_id),
        Verified(deployment_id),
        Cleared(deployment_id),
        TestPassed(deployment_id),
        TrialPassed(deployment_id),
    )


def reports(effects: Effects) -> list[tuple[str, S]]:
    return [(effect.deployment_id, effect.state) for effect in effects if isinstance(effect, Report)]


def at(phase: Phase) -> Life:
    """Return a device with version 1 that updates to version 2 and has come to a phase."""
    life = play(Life(), *update("d-1", ONE)).life
    for event in update("d-2", TWO):
        if life.phase is phase:
            return life
        life = advance(life, event).life
    return life


def test_an_update_goes_through_every_phase_and_keeps_the_version_before() -> None:
    life, effects = play(play(Life(), *update("d-1", ONE)).life, *update("d-2", TWO))
    assert (life.phase, life.active, life.previous, life.candidate) == (Phase.COMMITTED, TWO, ONE, None)
    assert reports(effects) == [
        ("d-2", S.DOWNLOADING),
        ("d-2", S.VERIFYING),
        ("d-2", S.STAGED),
        ("d-2", S.TRIAL),
        ("d-2", S.SUCCEEDED),
    ]


@pytest.mark.parametrize("phase", UPDATING)
def test_only_in_trial_does_the_candidate_answer(phase: Phase) -> None:
    assert at(phase).serving == (TWO if phase is Phase.TRIAL else ONE)


@pytest.mark.parametrize("phase", UPDATING)
@pytest.mark.parametrize("refused", [False, True])
def test_a_failure_ends_with_its_cause_and_the_version_before(phase: Phase, refused: bool) -> None:
    life, effects = advance(at(phase), Failed("d-2", CAUSE, refused))
    expected = S.ROLLED_BACK if phase is Phase.TRIAL else S.REJECTED if refused else S.FAILED
    assert Report("d-2", 2, expected, CAUSE) in effects
    assert Serve(ONE) in effects
    assert (life.active, life.candidate, life.serving) == (ONE, None, ONE)


@pytest.mark.parametrize("phase", UPDATING)
def test_a_newer_order_supersedes(phase: Phase) -> None:
    life, effects = advance(at(phase), Ordered("d-3", THREE))
    assert reports(effects) == [("d-2", S.CANCELED), ("d-3", S.DOWNLOADING)]
    assert (life.phase, life.candidate, life.serving) == (Phase.DOWNLOADING, THREE, ONE)
    assert advance(life, Fetched("d-2")) == (life, ())


@pytest.mark.parametrize("phase", UPDATING)
def test_an_order_for_the_active_version_ends_an_update(phase: Phase) -> None:
    life, effects = advance(at(phase), Ordered("d-3", ONE))
    assert reports(effects) == [("d-2", S.CANCELED), ("d-3", S.SUCCEEDED)]
    assert (life.phase, life.active, life.serving) == (Phase.COMMITTED, ONE, ONE)


@pytest.mark.parametrize("phase", UPDATING)
def test_removal_ends_everything(phase: Phase) -> None:
    life, effects = advance(at(phase), Withdrawn())
    assert life == Life()
    assert Serve(None) in effects
    assert Clean() in effects
    assert Report("d-2", 0, S.REMOVED) in effects


@pytest.mark.parametrize("phase", Phase)
def test_the_same_order_again_changes_nothing(phase: Phase) -> None:
    life = at(phase) if phase in UPDATING else at(Phase.COMMITTED)
    if phase is Phase.ROLLED_BACK:
        life = advance(at(Phase.TRIAL), Failed("d-2", CAUSE)).life
    elif phase is Phase.REJECTED:
        life = advance(at(Phase.TESTING), Failed("d-2", CAUSE)).life
    assert life.ordered is not None
    assert advance(life, Ordered(life.deployment_id, life.ordered)) == (life, ())


def test_a_version_that_failed_may_be_ordered_anew() -> None:
    failed = advance(at(Phase.TRIAL), Failed("d-2", CAUSE)).life
    assert advance(failed, Ordered("d-3", TWO)).life.phase is Phase.DOWNLOADING


@pytest.mark.parametrize(("phase", "end"), [(Phase.TESTING, S.FAILED), (Phase.TRIAL, S.ROLLED_BACK)])
def test_the_third_crash_gives_up_before_loading(phase: Phase, end: S) -> None:
    life = at(phase)
    for _ in range(CRASH_LIMIT - 1):
        life, effects = advance(life, Restarted())
        assert Work() in effects
    life, effects = advance(life, Restarted())
    assert Serve(TWO) not in effects
    assert Serve(ONE) in effects
    assert reports(effects) == [("d-2", end)]
    assert life.candidate is None


def test_an_orderly_stop_is_no_crash() -> None:
    life = at(Phase.TRIAL)
    for _ in range(5 * CRASH_LIMIT):
        life = play(life, Stopped(), Restarted()).life
    assert (life.phase, life.crashes) == (Phase.TRIAL, 0)


@pytest.mark.parametrize("phase", [Phase.DOWNLOADING, Phase.VERIFYING, Phase.STAGED])
def test_a_restart_goes_on_where_it_was(phase: Phase) -> None:
    life, effects = advance(at(phase), Restarted())
    assert life == at(phase)
    assert effects == (Serve(ONE), Work())


def test_damage_falls_back_and_repairs() -> None:
    committed = play(Life(), *update("d-1", ONE), *update("d-2", TWO)).life
    life, effects = advance(committed, Damaged(TWO))
    assert Serve(ONE) in effects
    assert (life.phase, life.active, life.candidate) == (Phase.DOWNLOADING, ONE, TWO)
    repaired = play(life, *update("d-2", TWO)[1:]).life
    assert (repaired.phase, repaired.active) == (Phase.COMMITTED, TWO)


def test_damage_of_the_only_version_repairs_too() -> None:
    life, effects = advance(play(Life(), *update("d-1", ONE)).life, Damaged(ONE))
    assert Serve(None) in effects
    assert (life.phase, life.active, life.candidate) == (Phase.DOWNLOADING, None, ONE)


def test_the_page_shows_the_machine_as_it_is() -> None:
    page = Path("docs/reference/device-life.md").read_text("utf-8")
    assert f"```mermaid\n{mermaid()}```" in page, "run: python -m agent.life.diagram"
    for phase in Phase:
        assert f"| `{phase}` |" in page
