"""The update machine under any sequence of events: what holds always."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.life.machine import advance
from agent.life.terms import (
    CRASH_LIMIT,
    PREPARING,
    UPDATING,
    Cleared,
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
)
from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.errors import Cause
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

OFFERS = ((), ("onnx-int8",), ("tflite-int8", "onnx-int8"))
VERSIONS = st.integers(1, 4)
WORK = st.sampled_from([Fetched, Verified, Cleared, TestPassed, ShadowPassed, TrialPassed])


def release(version: int) -> Release:
    return Release(version, f"{version:064x}", "onnx-fp32")


class AnyLife(RuleBasedStateMachine):
    """A device that gets any orders, outcomes, restarts and stale events."""

    @initialize()
    def begin(self) -> None:
        self.life = Life()
        self.orders = 0
        self.serving: Release | None = None
        self.tested: set[tuple[str, Release]] = set()
        self.ends: dict[str, list[S]] = {}

    def play(self, event: Event) -> None:
        before = self.life
        self.life, effects = advance(before, event)
        for effect in effects:
            if isinstance(effect, Serve):
                self.serving = effect.release
            elif isinstance(effect, Report) and effect.state.is_terminal:
                self.ends.setdefault(effect.deployment_id, []).append(effect.state)
                assert (effect.cause is not None) == effect.state.is_failure
        # Nothing but a passed self-test lets a candidate answer, and nothing but a passed trial commits it.
        if self.life.phase is Phase.TRIAL and before.phase is not Phase.TRIAL:
            assert isinstance(event, ShadowPassed if before.phase is Phase.SHADOW else TestPassed)
            assert before.phase is Phase.SHADOW or not (before.shadow_s and before.active)
        if self.life.phase is Phase.SHADOW and before.phase is not Phase.SHADOW:
            assert isinstance(event, TestPassed)
            assert before.shadow_s
        if self.life.active not in {before.active, None}:
            assert isinstance(event, TrialPassed)
            assert before.candidate == self.life.active

    @rule(
        version=VERSIONS,
        offered=st.sampled_from(OFFERS),
        policy=st.sampled_from(VariantPolicy),
        shadow_s=st.sampled_from([0, 60]),
    )
    def order(self, version: int, offered: tuple[str, ...], policy: VariantPolicy, shadow_s: int) -> None:
        self.orders += 1
        self.play(Ordered(f"d-{self.orders}", release(version), offered, policy, shadow_s))

    @rule()
    def order_again(self) -> None:
        if self.life.ordered is not None:
            before = self.life
            self.play(Ordered(before.deployment_id, self.life.ordered))
            assert self.life == before

    @rule(version=VERSIONS)
    def order_another_version_under_the_same_id(self, version: int) -> None:
        before = self.life
        if before.ordered not in {release(version), None}:
            self.ends.pop(before.deployment_id, None)  # what ended is another deployment
            self.play(Ordered(before.deployment_id, release(version)))
            assert self.life.ordered == release(version)
            assert self.life.candidate == (None if release(version) == before.active else release(version))

    @rule(kind=WORK)
    def work_succeeds(self, kind: type[Fetched]) -> None:
        self.play(kind(self.life.deployment_id))

    @rule(data=st.data())
    def fetched_some_of_what_is_offered(self, data: st.DataObject) -> None:
        names = [offered.variant for offered in self.life.offered]
        if names:
            kept = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
            self.play(Fetched(self.life.deployment_id, tuple(kept)))

    @rule(data=st.data())
    def one_is_chosen(self, data: st.DataObject) -> None:
        if self.life.offered:
            chosen = data.draw(st.sampled_from(self.life.offered))
            self.play(TestPassed(self.life.deployment_id, chosen.variant))

    @rule(refused=st.booleans())
    def work_fails(self, refused: bool) -> None:
        self.play(Failed(self.life.deployment_id, Cause("no_space", "Full."), refused))

    @rule(kind=WORK)
    def stale_work(self, kind: type[Fetched]) -> None:
        before = self.life
        self.play(kind(f"d-{self.orders + 1}"))
        assert self.life == before

    @rule()
    def crash(self) -> None:
        self.serving = None
        self.play(Restarted())

    @rule()
    def restart_orderly(self) -> None:
        crashes = self.life.crashes
        self.play(Stopped())
        self.serving = None
        self.play(Restarted())
        assert self.life.crashes == crashes

    @rule()
    def withdraw(self) -> None:
        self.play(Withdrawn())
        assert self.life == Life()

    @invariant()
    def what_answers_is_what_the_state_says(self) -> None:
        assert self.serving == self.life.serving

    @invariant()
    def a_candidate_exists_exactly_in_an_update(self) -> None:
        assert (self.life.candidate is not None) == (self.life.phase in UPDATING)

    @invariant()
    def only_an_update_before_its_trial_has_alternatives(self) -> None:
        if self.life.alternatives:
            assert self.life.phase in {*PREPARING, Phase.TESTING}
            assert len(set(self.life.offered)) == len(self.life.alternatives) + 1

    @invariant()
    def crashes_are_bounded(self) -> None:
        assert 0 <= self.life.crashes < CRASH_LIMIT

    @invariant()
    def a_deployment_ends_once(self) -> None:
        for deployment_id, ends in self.ends.items():
            # Removal takes away what a deployment had brought: it may follow, and then ends the story.
            assert len([end for end in ends if end is not S.REMOVED]) <= 1, deployment_id
            assert ends.count(S.REMOVED) <= 1


AnyLife.TestCase.settings = settings(
    max_examples=examples(150), stateful_step_count=40, deadline=None, derandomize=True
)
TestAnyLife = AnyLife.TestCase
