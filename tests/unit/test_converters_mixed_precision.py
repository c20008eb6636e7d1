"""The search for the fewest layers that have to stay float."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.judging.mixed_precision import KeptFloat, Verdict, fewest_kept
from converters.judging.sensitivity import cumulative_errors, layer_errors, most_sensitive_first
from converters.targets.onnx_int8 import build, prepared
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import with_a_bad_layer

LAYERS = tuple("abcdefgh")


def _needs(*sets: str) -> Callable[[frozenset[str]], Verdict]:
    """Return a judge that passes what keeps all layers of one of these sets."""

    def judge(kept: frozenset[str]) -> Verdict:
        return Verdict(any(kept >= set(each) for each in sets), 1.0 - 0.01 * len(kept))

    return judge


def test_nothing_is_kept_where_nothing_has_to_be() -> None:
    found = fewest_kept(LAYERS, _needs(""))
    assert found == KeptFloat((), True, found.trace)
    assert [attempt.kept for attempt in found.trace] == [()]


@pytest.mark.parametrize("count", range(1, 8))
def test_the_smallest_prefix_is_found(count: int) -> None:
    found = fewest_kept(LAYERS, _needs("abcdefgh"[:count]))
    assert found.passes
    assert found.layers == LAYERS[:count]


@pytest.mark.parametrize("needed", ["c", "be", "aeg"])
def test_members_that_do_not_matter_are_put_back(needed: str) -> None:
    assert fewest_kept(LAYERS, _needs(needed)).layers == tuple(needed)


def test_nothing_short_of_all_layers_is_no_answer() -> None:
    found = fewest_kept(LAYERS, _needs("abcdefgh"))
    assert not found.passes
    assert found.layers == ()
    assert max(len(attempt.kept) for attempt in found.trace) == 7


def test_a_candidate_that_cannot_be_built_does_not_pass() -> None:
    def judge(kept: frozenset[str]) -> Verdict:
        if "a" in kept and "b" not in kept:
            raise ConversionFailed("It cannot be built.")
        return Verdict("b" in kept, 0.5)

    found = fewest_kept(LAYERS, judge)
    assert found.layers == ("b",)
    assert [attempt.score for attempt in found.trace if attempt.kept == ("a",)] == [None]


@given(
    needed=st.lists(st.frozensets(st.sampled_from(LAYERS)), min_size=1, max_size=3),
    max_builds=st.integers(0, 30),
)
@settings(deadline=None)
def test_the_search_keeps_its_budget_and_never_asks_twice(
    needed: list[frozenset[str]], max_builds: int
) -> None:
    asked: list[frozenset[str]] = []

    def judge(kept: frozenset[str]) -> Verdict:
        asked.append(kept)
        return Verdict(any(kept >= each for each in needed), 0.0)

    found = fewest_kept(LAYERS, judge, max_builds=max_builds)
    assert len(asked) <= max_builds
    assert len(set(asked)) == len(asked)
    assert frozenset(LAYERS) not in asked
    assert [attempt.kept for attempt in found.trace] == [tuple(sorted(each)) for each in asked]
    if found.passes:
        kept = frozenset(found.layers)
        assert any(kept >= each for each in needed)
        if max_builds == 30 and kept:  # a single member less does not do
            assert not any(kept - {layer} >= each for layer, each in itertools.product(kept, needed))


def test_keeping_the_bad_layer_float_brings_the_answers_back() -> None:
    network = with_a_bad_layer()
    errors = layer_errors(network)
    order = most_sensitive_first({error.name: error.isolated_db for error in errors})
    fp32 = prepared(network.onnx).SerializeToString()

    def judge(kept: frozenset[str]) -> Verdict:
        int8 = build(replace(network, keep_float=kept))
        lost = cumulative_errors(fp32, int8, network.samples())["layer4"] or 0.0
        return Verdict(lost > 30.0, lost)

    found = fewest_kept(order, judge)
    assert found.layers == ("layer3",)
