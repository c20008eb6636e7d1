"""What each layer loses in int8, and the search for the fewest that have to stay float."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from converters.judging.sensitivity import (
    KeptFloat,
    LayerError,
    Verdict,
    cumulative_errors,
    fewest_kept,
    isolated_errors,
    layer_errors,
    most_sensitive_first,
)
from converters.target import Work
from converters.targets.onnx_int8 import build, prepared
from fleet.protocol.errors import ConversionFailed
from tests.support.networks import convolutional, dense, work


def _with_a_bad_layer() -> Work:
    """Return four dense layers; in front of the third one value is a hundred times the others."""
    random = np.random.RandomState(0)
    constants = {f"w{i}": random.standard_normal((32, 32)).astype(np.float32) / 6 for i in range(1, 5)}
    constants["w2"][:, 5] *= 100.0
    constants["w3"][5] /= 100.0
    tensors = ["x", "h1", "h2", "h3", "y"]
    nodes = [
        helper.make_node("MatMul", [tensors[i - 1], f"w{i}"], [tensors[i]], f"layer{i}") for i in range(1, 5)
    ]
    samples = random.standard_normal((64, 32)).astype(np.float32)
    return work(nodes, constants, takes=(32,), gives=(32,), samples=samples)


def test_the_layer_that_is_to_blame_comes_first() -> None:
    errors = layer_errors(_with_a_bad_layer())
    assert errors[0].name == "layer3"
    blame = {error.name: error.isolated_db or 0.0 for error in errors}
    assert blame["layer3"] < min(blame[name] for name in ("layer1", "layer2", "layer4")) - 10
    isolated = [error.isolated_db for error in errors]
    assert isolated == sorted(isolated, key=lambda each: each or 0.0)


def test_noise_adds_up_on_its_way() -> None:
    errors = {error.name: error for error in layer_errors(_with_a_bad_layer())}
    along = [errors[f"layer{i}"].cumulative_db or 0.0 for i in range(1, 5)]
    assert along[0] > along[2] + 10  # the third layer's noise
    assert along[3] < along[0]
    total = 1 / sum(10 ** (-(e.isolated_db or 0.0) / 10) for e in errors.values())
    assert along[3] == pytest.approx(10 * np.log10(total), abs=3)  # independent noise: Lin et al. 2016


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (convolutional(), {"conv1", "depthwise", "pointwise", "dense"}),
        (dense(), {"dense1", "dense2", "dense3"}),
    ],
)
def test_every_quantized_layer_is_measured(network: Work, layers: set[str]) -> None:
    errors = layer_errors(network)
    assert {error.name for error in errors} == layers
    for error in errors:
        assert error.cumulative_db is not None
        assert error.isolated_db is not None
        assert 15 < error.cumulative_db < 70
        assert 15 < error.isolated_db < 90
    assert msgspec.json.decode(msgspec.json.encode(errors), type=tuple[LayerError, ...]) == errors


def test_without_quantization_there_is_no_noise() -> None:
    fp32 = prepared(dense().onnx).SerializeToString()
    assert dense().calibration is not None
    found = cumulative_errors(fp32, fp32, dense().calibration or {})
    assert found == {"dense1": None, "dense2": None, "dense3": None}
    quiet = isolated_errors(["a"], lambda _: b"", lambda _: np.ones(3), np.ones(3))
    assert quiet == {"a": None}


def test_the_noise_of_a_layer_without_a_signal_is_a_finite_number() -> None:
    loud = isolated_errors(["a"], lambda _: b"", lambda _: np.ones(3), np.zeros(3))["a"]
    assert loud is not None
    assert np.isfinite(loud)
    assert loud < -1000


def test_layers_without_noise_are_the_last_to_be_kept() -> None:
    assert most_sensitive_first({"a": 40.0, "b": None, "c": 10.0}) == ("c", "a", "b")


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
    network = _with_a_bad_layer()
    errors = layer_errors(network)
    order = most_sensitive_first({error.name: error.isolated_db for error in errors})
    fp32 = prepared(network.onnx).SerializeToString()

    def judge(kept: frozenset[str]) -> Verdict:
        int8 = build(replace(network, keep_float=kept))
        lost = cumulative_errors(fp32, int8, network.calibration or {})["layer4"] or 0.0
        return Verdict(lost > 30.0, lost)

    found = fewest_kept(order, judge)
    assert found.layers == ("layer3",)
