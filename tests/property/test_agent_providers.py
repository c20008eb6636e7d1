"""Execution providers: which are tried, in which order, whatever is here and whatever is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtimes.providers import CPU, PROVIDERS, candidates, check_providers, session_providers
from fleet.protocol.errors import InvalidConfiguration

ORDER = list(PROVIDERS)
SELDOM = ("AzureExecutionProvider", "DnnlExecutionProvider")
available = st.lists(
    st.sampled_from([entry.runtime_name for entry in PROVIDERS.values()] + list(SELDOM)), unique=True
)
wanted = st.lists(st.sampled_from([*ORDER, "openvino:GPU", "openvino:NPU", "cuda:1", "qnn:htp"]), max_size=5)


@given(available, wanted)
def test_the_processor_is_the_last_and_nothing_comes_twice(here: list[str], asked: list[str]) -> None:
    tried = candidates(here, asked)
    assert tried[-1] == CPU
    assert len(set(tried)) == len(tried)


@given(available)
def test_without_a_wish_all_that_are_here_are_tried_best_first(here: list[str]) -> None:
    tried = candidates(here, [])
    assert list(tried) == sorted(tried, key=ORDER.index)
    assert {PROVIDERS[name].runtime_name for name in tried[:-1]} == (
        set(here) - set(SELDOM) - {"CPUExecutionProvider"}
    )


@given(available, wanted.filter(bool))
def test_a_wish_is_followed_up_to_the_processor(here: list[str], asked: list[str]) -> None:
    check_providers(asked)
    before = list(dict.fromkeys(asked[: asked.index(CPU)] if CPU in asked else asked))
    assert list(candidates(here, asked)) == [*before, CPU]


@given(available, st.sampled_from(ORDER), st.integers(0, 2**40))
def test_a_session_is_opened_with_what_is_here(here: list[str], name: str, limit_bytes: int) -> None:
    opened = session_providers(
        name, [*here, "CPUExecutionProvider"], cache=Path("/state/c"), device_memory_bytes=limit_bytes
    )
    names = [each for each, _ in opened]
    assert names[0] == PROVIDERS[name].runtime_name
    assert names[-1] == "CPUExecutionProvider"
    assert set(names[1:]) <= {*here, "CPUExecutionProvider"}
    assert all(isinstance(value, str) for _, options in opened for value in options.values())


def test_the_options_are_those_of_the_documentation() -> None:
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert session_providers("tensorrt", both, cache=Path("/c"), device_memory_bytes=7) == [
        (
            "TensorrtExecutionProvider",
            {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": "/c",
                "trt_max_workspace_size": "7",
            },
        ),
        ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": "7"}),
        ("CPUExecutionProvider", {}),
    ]
    here = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    ((_, options), _) = session_providers("openvino:GPU.1", here, cache=Path("/c"))
    assert options == {"device_type": "GPU.1", "num_of_threads": "1", "cache_dir": "/c"}


@pytest.mark.parametrize(
    "name", ["", "gpu", "CUDA", "cuda:", "cuda:0;1", "cpu:1", "xnnpack:2", "openvino:AUTO", "openvino:auto"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidConfiguration):
        check_providers([name])
