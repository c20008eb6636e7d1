"""The update machine's rules, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.life.actions import Step
from agent.life.diagram import mermaid
from agent.life.machine import advance
from agent.life.terms import (
    CRASH_LIMIT,
    EXPOSED,
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
    ShadowPassed,
    Stopped,
    TestPassed,
    TrialPassed,
    Verified,
    Withdrawn,
    Work,
)
from fleet.protocol.assignment import VariantPolicy
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


def update(deployment_id: str, release: Release, shadow_s: int = 0) -> tuple[Event, ...]:
    """Return the events of an update that goes well; one without a shadow ignores that it is over."""
    return (
        Ordered(deployment_id, release, shadow_s=shadow_s),
        Fetched(deployment_id),
        Verified(deployment_id),
        Cleared(deployment_id),
        TestPassed(deployment_id),
        ShadowPassed(deployment_id),
        TrialPassed(deployment_id),
    )


def reports(effects: Effects) -> list[tuple[str, S]]:
    return [(effect.deployment_id, effect.state) for effect in effects if isinstance(effect, Report)]


def at(phase: Phase) -> Life:
    """Return a device with version 1 that updates to version 2 and has come to a phase."""
    life = play(Life(), *update("d-1", ONE)).life
    for event in update("d-2", TWO, shadow_s=60 if phase is Phase.SHADOW else 0):
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


@pytest.mark.parametrize(
    ("phase", "end"),
    [(Phase.TESTING, S.FAILED), (Phase.SHADOW, S.FAILED), (Phase.TRIAL, S.ROLLED_BACK)],
)
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


@pytest.mark.parametrize("phase", EXPOSED)
def test_an_orderly_stop_is_no_crash(phase: Phase) -> None:
    life = at(phase)
    for _ in range(5 * CRASH_LIMIT):
        life = play(life, Stopped(), Restarted()).life
    assert (life.phase, life.crashes) == (phase, 0)


def test_a_shadow_comes_before_the_trial_and_answers_nothing() -> None:
    before = play(Life(), *update("d-1", ONE)).life
    *steps, shadow_passed, trial_passed = update("d-2", TWO, shadow_s=60)
    life, effects = play(before, *steps)
    assert (life.phase, life.candidate, life.serving, life.running) == (Phase.SHADOW, TWO, ONE, True)
    assert reports(effects)[-1] == ("d-2", S.SHADOW)
    assert not [effect for effect in effects if isinstance(effect, Serve)]
    life, effects = advance(life, shadow_passed)
    assert (life.phase, life.serving, reports(effects)) == (Phase.TRIAL, TWO, [("d-2", S.TRIAL)])
    life = advance(life, trial_passed).life
    assert (life.phase, life.active, life.shadow_s) == (Phase.COMMITTED, TWO, 0)


def test_the_first_version_has_nothing_to_be_compared_with() -> None:
    life = play(Life(), *update("d-1", ONE, shadow_s=60)[:5]).life
    assert (life.phase, life.serving) == (Phase.TRIAL, ONE)


def test_the_repair_of_a_committed_version_needs_no_shadow() -> None:
    committed = play(Life(), *update("d-1", ONE), *update("d-2", TWO, shadow_s=60)).life
    life = advance(committed, Damaged(TWO)).life
    life = play(life, *update("d-2", TWO)[1:5]).life
    assert life.phase is Phase.TRIAL


def test_the_active_version_may_be_damaged_during_a_shadow() -> None:
    life, effects = advance(at(Phase.SHADOW), Damaged(ONE))
    assert (life.phase, life.candidate, life.serving) == (Phase.SHADOW, TWO, None)
    assert effects == (Serve(None),)
    assert advance(life, ShadowPassed("d-2")).life.serving == TWO


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


def offering(policy: VariantPolicy, *alternatives: str) -> Ordered:
    """Return an order of version 2 that leaves a choice."""
    return Ordered("d-2", TWO, alternatives, policy)


def variant(release: Release, name: str) -> Release:
    return Release(release.version, release.manifest_sha256, name)


def test_what_is_measured_is_prepared_together_and_only_the_chosen_one_stays() -> None:
    life = play(
        Life(),
        *update("d-1", ONE),
        offering(VariantPolicy.FASTEST, "onnx-int8", "tflite-int8"),
        Fetched("d-2", ("onnx-fp32", "tflite-int8")),
    ).life
    tflite = variant(TWO, "tflite-int8")
    assert life.prepared == (TWO, tflite)
    assert life.installed == {ONE, TWO, tflite}
    life, effects = play(life, Verified("d-2"), Cleared("d-2"), TestPassed("d-2", "tflite-int8"))
    assert (life.phase, life.candidate, life.installed) == (Phase.TRIAL, tflite, frozenset({ONE, tflite}))
    assert Serve(tflite) in effects
    assert play(life, TrialPassed("d-2")).life.active == tflite


def test_a_choice_that_falls_on_the_active_variant_needs_no_trial() -> None:
    life = play(Life(), *update("d-1", ONE), *update("d-2", variant(TWO, "tflite-int8"))).life
    order = Ordered("d-3", TWO, ("tflite-int8",), VariantPolicy.COOLEST)
    chosen = play(
        life, order, Fetched("d-3"), Verified("d-3"), Cleared("d-3"), TestPassed("d-3", "tflite-int8")
    )
    assert chosen.life.phase is Phase.COMMITTED
    assert (chosen.life.active, chosen.life.previous) == (variant(TWO, "tflite-int8"), ONE)
    assert reports(chosen.effects)[-1] == ("d-3", S.SUCCEEDED)


def test_an_order_to_choose_among_variants_of_the_active_version_is_carried_out() -> None:
    life = play(Life(), *update("d-1", TWO)).life
    again = Ordered("d-2", TWO, ("onnx-int8",), VariantPolicy.FASTEST)
    assert advance(life, again).life.phase is Phase.DOWNLOADING
    smallest = Ordered("d-2", TWO, ("onnx-int8",), VariantPolicy.SMALLEST)
    assert advance(life, smallest).life.phase is Phase.COMMITTED


def with_the_smallest_under_test() -> Life:
    """Return a device with version 1 that tests the smallest variant of version 2."""
    events = (Fetched("d-2"), Verified("d-2"), Cleared("d-2"))
    order = offering(VariantPolicy.SMALLEST, "onnx-int8", "tflite-int8")
    return play(Life(), *update("d-1", ONE), order, *events).life


@pytest.mark.parametrize("end", [Failed("d-2", CAUSE), Restarted()], ids=["failed", "crashed"])
def test_the_smallest_variant_that_fails_gives_way_to_the_next(end: Event) -> None:
    life, effects = advance(with_the_smallest_under_test(), end)
    assert (life.phase, life.candidate) == (Phase.DOWNLOADING, variant(TWO, "onnx-int8"))
    assert life.prepared == (variant(TWO, "onnx-int8"),)
    assert (life.crashes, life.running) == (0, False)
    report = next(effect for effect in effects if isinstance(effect, Report))
    assert report.state is S.DOWNLOADING
    assert report.cause is not None
    assert effects[-1] == Work()


def test_the_last_variant_that_fails_ends_the_deployment() -> None:
    life = with_the_smallest_under_test()
    again = (Fetched("d-2"), Verified("d-2"), Cleared("d-2"), Failed("d-2", CAUSE))
    life, effects = play(life, Failed("d-2", CAUSE), *again, *again)
    assert (life.phase, life.active, life.alternatives) == (Phase.REJECTED, ONE, ())
    assert reports(effects)[-1] == ("d-2", S.FAILED)


def test_variants_that_are_measured_together_fail_together() -> None:
    order = offering(VariantPolicy.FASTEST, "onnx-int8")
    life = play(Life(), order, Fetched("d-2"), Verified("d-2"), Cleared("d-2")).life
    assert advance(life, Failed("d-2", CAUSE)).life.phase is Phase.REJECTED
