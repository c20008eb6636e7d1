"""What a variant asks of a device: each condition at its limit, and what a refusal says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fleet.protocol.errors import VariantUnsupported
from fleet.protocol.messages import Capabilities
from fleet.protocol.requirement import RuntimeRequirement, RuntimeVersion, suitable_runtime, version_key

DEVICE = Capabilities(
    agent_version="1",
    architecture="aarch64",
    runtimes={"onnxruntime": "1.23.2", "litert": "2.1.0"},
    memory_bytes=1000,
    free_bytes=0,
)
LITERT = RuntimeVersion("litert", "2.1")
TFLITE_RUNTIME = RuntimeVersion("tflite-runtime", "2.14")


def requirement(*runtimes: RuntimeVersion, **conditions: Any) -> RuntimeRequirement:
    return RuntimeRequirement(
        runtimes, size_bytes=10, peak_memory_bytes=conditions.pop("peak_memory_bytes", 0), **conditions
    )


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (requirement(LITERT, RuntimeVersion("onnxruntime", "1.20")), "litert"),
        (requirement(RuntimeVersion("onnxruntime", "1.20"), LITERT), "onnxruntime"),
        (requirement(TFLITE_RUNTIME, LITERT), "litert"),
        (
            requirement(RuntimeVersion("litert", "3.0"), RuntimeVersion("onnxruntime", "1.23.2")),
            "onnxruntime",
        ),
        (requirement(LITERT, peak_memory_bytes=1000), "litert"),
        (requirement(LITERT, architectures=("x86_64", "aarch64")), "litert"),
    ],
)
def test_the_first_runtime_that_the_device_has_is_chosen(asked: RuntimeRequirement, chosen: str) -> None:
    assert suitable_runtime(asked, DEVICE) == chosen


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (requirement(TFLITE_RUNTIME), r"tflite-runtime>=2\.14.* litert 2\.1\.0, onnxruntime 1\.23\.2"),
        (requirement(RuntimeVersion("litert", "2.1.1")), r"litert>=2\.1\.1"),
        (requirement(RuntimeVersion("onnxruntime", "1.24"), TFLITE_RUNTIME), "1.24 or tflite-runtime"),
        (requirement(LITERT, peak_memory_bytes=1001), "1001 bytes of memory; the device has 1000"),
        (requirement(LITERT, architectures=("x86_64", "armv7l")), "x86_64 or armv7l; the device is aarch64"),
    ],
)
def test_what_a_device_lacks_is_said(asked: RuntimeRequirement, why: str) -> None:
    with pytest.raises(VariantUnsupported, match=why):
        suitable_runtime(asked, DEVICE)


def test_a_device_without_runtimes_runs_nothing() -> None:
    bare = msgspec.structs.replace(DEVICE, runtimes={})
    with pytest.raises(VariantUnsupported, match="the device has none"):
        suitable_runtime(requirement(LITERT), bare)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.9", "1.10"),
        ("1.20", "1.20.1"),
        ("2.14.0", "10.0"),
        ("", "0"),
        ("dev", "0.1"),
        ("1.20.1rc1", "1.20.2"),
    ],
)
def test_versions_are_compared_by_their_leading_numbers(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)


def test_a_version_that_is_no_number_meets_no_minimum() -> None:
    odd = msgspec.structs.replace(DEVICE, runtimes={"litert": "nightly"})
    with pytest.raises(VariantUnsupported):
        suitable_runtime(requirement(LITERT), odd)


@pytest.mark.parametrize(
    "data",
    [
        b'{"runtimes":[],"size_bytes":1,"peak_memory_bytes":1}',
        b'{"runtimes":[{"name":"NOT A NAME","minimum_version":"1"}],"size_bytes":1,"peak_memory_bytes":1}',
        b'{"runtimes":[{"name":"litert","minimum_version":"1"}],"size_bytes":-1,"peak_memory_bytes":1}',
        b'{"runtimes":[{"name":"litert","minimum_version":"1"}],"size_bytes":1}',
        b'{"runtimes":[{"name":"litert","minimum_version":"newest"}],"size_bytes":1,"peak_memory_bytes":1}',
        b'{"runtimes":[{"name":"litert","minimum_version":""}],"size_bytes":1,"peak_memory_bytes":1}',
        b'{"runtimes":[{"name":"litert","minimum_version":"1.20\\n"}],"size_bytes":1,"peak_memory_bytes":1}',
    ],
)
def test_a_requirement_that_says_nothing_is_none(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=RuntimeRequirement)
