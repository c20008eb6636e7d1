"""The choice of a variant, whatever was measured."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.assignment import MAX_ALTERNATIVES, VariantPolicy
from fleet.protocol.errors import Cause
from fleet.protocol.messages import Capabilities
from fleet.protocol.records import Candidate, Measurement
from fleet.variants import NOISE, Peers, agreed, check_measurement, choose, offer
from tests.support.agent_bundles import build
from tests.support.measurements import DIGEST, HARDWARE, RUNTIMES, measurement
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

MANY = settings(max_examples=examples(200), derandomize=True, deadline=None)
MANIFEST = build(1).manifest
NAMES = [variant.name for variant in MANIFEST.variants]
DEVICE = Capabilities("0.1.0", "x86_64", RUNTIMES, 2**32, 2**32, HARDWARE)
POLICIES = st.sampled_from(list(VariantPolicy))
MEASURED = st.sampled_from([VariantPolicy.FASTEST, VariantPolicy.COOLEST])
DURATIONS = st.floats(0.0, 1e6)


def candidates(names: st.SearchStrategy[str]) -> st.SearchStrategy[list[Candidate]]:
    one = st.builds(
        Candidate,
        variant=names,
        runtime=st.just("litert"),
        runtime_version=st.just("2.1"),
        size_bytes=st.integers(0, 10**9),
        median_us=DURATIONS,
        p90_us=DURATIONS,
        cpu_us=DURATIONS,
        cause=st.none() | st.just(Cause("self_test_failed", "Answers differ.")),
    )
    return st.lists(one, min_size=1, max_size=MAX_ALTERNATIVES + 1, unique_by=lambda each: each.variant)


ANY = candidates(st.text("abcdefgh", min_size=1, max_size=3))
MEASUREMENTS = st.builds(
    lambda of, policy: measurement(*of, policy=policy), candidates(st.sampled_from(NAMES)), MEASURED
)


@given(ANY, POLICIES, st.randoms(use_true_random=False))
@MANY
def test_the_order_of_candidates_does_not_matter_where_they_are_measured(
    tried: list[Candidate], policy: VariantPolicy, random: Random
) -> None:
    shuffled = list(tried)
    random.shuffle(shuffled)
    if policy is not VariantPolicy.FIRST:
        assert choose(shuffled, policy) == choose(tried, policy)


@given(ANY, MEASURED)
@MANY
def test_what_is_chosen_passed_and_nothing_beats_it_by_more_than_noise(
    tried: list[Candidate], policy: VariantPolicy
) -> None:
    def cost(one: Candidate) -> float:
        return one.median_us if policy is VariantPolicy.FASTEST else one.cpu_us

    passed = [one for one in tried if one.cause is None]
    best = choose(tried, policy)
    assert (best is None) == (not passed)
    if best is not None:
        assert best in passed
        assert cost(best) <= min(map(cost, passed)) * (1 + NOISE)
        as_good = [one for one in passed if cost(one) <= min(map(cost, passed)) * (1 + NOISE)]
        assert best.size_bytes == min(one.size_bytes for one in as_good)


@given(MEASUREMENTS)
@MANY
def test_what_a_device_measures_is_taken_by_the_hub(measured: Measurement) -> None:
    check_measurement(measured, DIGEST)


@given(POLICIES, st.none() | MEASUREMENTS, st.lists(MEASUREMENTS, max_size=12))
@MANY
def test_what_is_offered_fits_and_a_choice_is_offered_whole(
    policy: VariantPolicy, own: Measurement | None, others: list[Measurement]
) -> None:
    offered = offer(MANIFEST, DEVICE, policy, own=own, others=Peers(others))
    names = (offered.variant, *offered.alternatives)
    assert len(set(names)) == len(names)
    if offered.alternatives:
        assert set(names) == set(NAMES)
        assert offered.policy is policy
    else:
        assert offered.policy is VariantPolicy.FIRST


@given(st.lists(MEASUREMENTS, max_size=12), MEASURED)
@MANY
def test_a_class_agrees_only_on_what_nearly_all_of_at_least_three_chose(
    measured: list[Measurement], policy: VariantPolicy
) -> None:
    winner = agreed(measured, policy, set(NAMES))
    if winner is not None:
        bests = [choose(each.candidates, policy) for each in measured]
        voters = [best.variant for best in bests if best is not None]
        assert voters.count(winner) >= 3
        assert voters.count(winner) >= 0.9 * len(voters)
