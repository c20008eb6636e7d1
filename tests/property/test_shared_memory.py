"""Whatever is registered and named, a region stays within its file and a tensor within its region."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.serving.binary import Parameter
from agent.serving.caller import Caller
from agent.serving.shared_memory import CallersMemory, SharedMemory
from agent.serving.shared_region import RegisterRequest
from fleet.protocol.errors import InvalidMessage, MessageTooLarge, MusterError, NotFound, NotPermitted
from tests.support.shared_memory import SharedFile

FUZZ = settings(
    max_examples=200, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DATA = bytes(range(256)) * 2
LIMIT_BYTES = 1000
ACCOUNT = os.geteuid()
NUMBERS = st.one_of(st.integers(-2, 600), st.integers(2**63 - 300, 2**63 + 300), st.integers())


class Sent(NamedTuple):
    """A tensor that is sent."""

    name: str
    parameters: dict[str, Parameter]


@pytest.fixture(name="file", scope="module")
def file_fixture() -> Iterator[SharedFile]:
    file = SharedFile(DATA)
    yield file
    file.remove()


@pytest.fixture(name="caller", scope="module")
def caller_fixture() -> Iterator[Caller]:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield Caller(ours)


@FUZZ
@given(offset=NUMBERS, byte_size=NUMBERS)
def test_a_region_is_within_its_file(file: SharedFile, caller: Caller, offset: int, byte_size: int) -> None:
    memory = SharedMemory(LIMIT_BYTES)
    body = msgspec.json.encode({"key": file.key, "offset": offset, "byte_size": byte_size})
    fits = offset >= 0 and byte_size >= 1 and offset + byte_size <= len(DATA)
    try:
        assert memory.answer("POST", ["region", "a", "register"], body, caller) == {}
    except (InvalidMessage, MessageTooLarge):
        assert not fits
        return
    assert fits
    whole = Sent("x", {"shared_memory_region": "a", "shared_memory_byte_size": byte_size})
    expected = DATA[offset : offset + byte_size]
    assert bytes(CallersMemory(memory, caller).read([whole])["x"]) == expected


@FUZZ
@given(
    parameters=st.fixed_dictionaries(
        {},
        optional={
            "shared_memory_region": st.one_of(st.sampled_from(["a", "a", "b"]), st.text(), NUMBERS),
            "shared_memory_byte_size": st.one_of(NUMBERS, st.booleans(), st.floats(), st.text()),
            "shared_memory_offset": st.one_of(NUMBERS, st.booleans(), st.floats(), st.text()),
        },
    )
)
def test_a_tensor_is_within_its_region(
    file: SharedFile, caller: Caller, parameters: dict[str, Parameter]
) -> None:
    memory = SharedMemory(LIMIT_BYTES)
    memory.register(ACCOUNT, "a", RegisterRequest(file.key, 300, 100))
    try:
        found = CallersMemory(memory, caller).read([Sent("x", parameters)])
    except (InvalidMessage, NotFound):
        return
    if not parameters:
        assert found == {}
        return
    values: Any = parameters
    start, size_bytes = values.get("shared_memory_offset", 0), values["shared_memory_byte_size"]
    assert values["shared_memory_region"] == "a"
    assert 0 <= start <= start + size_bytes <= 300
    assert bytes(found["x"]) == DATA[100 + start : 100 + start + size_bytes]


@FUZZ
@given(key=st.text(), name=st.text())
def test_no_name_leads_elsewhere(file: SharedFile, key: str, name: str) -> None:
    assert file.path.exists()
    with pytest.raises(MusterError):
        SharedMemory(LIMIT_BYTES).register(ACCOUNT, name, RegisterRequest(f"{key}/../{file.name}", 1))


def test_regions_are_their_accounts(file: SharedFile, caller: Caller) -> None:
    memory = SharedMemory(LIMIT_BYTES)
    with pytest.raises(NotPermitted, match="another account"):
        memory.register(ACCOUNT + 1, "a", RegisterRequest(file.key, 1))
    memory.register(ACCOUNT, "a", RegisterRequest(file.key, 1))
    with pytest.raises(NotFound):
        memory.find(ACCOUNT + 1, "a")
    memory.unregister(ACCOUNT + 1, None)
    memory.unregister(ACCOUNT + 1, "a")
    assert memory.find(ACCOUNT, "a").key == file.key
    assert memory.answer("GET", ["status"], b"", caller) == [
        {"name": "a", "key": file.key, "offset": 0, "byte_size": 1}
    ]


def test_a_region_in_use_outlives_its_name(file: SharedFile, caller: Caller) -> None:
    memory = SharedMemory(LIMIT_BYTES)
    memory.register(ACCOUNT, "a", RegisterRequest(file.key, 10))
    asked = Sent("x", {"shared_memory_region": "a", "shared_memory_byte_size": 10})
    part = CallersMemory(memory, caller).part(asked)
    assert part is not None
    memory.unregister(ACCOUNT, "a")
    with pytest.raises(NotFound):
        CallersMemory(memory, caller).part(asked)
    assert part.read() == DATA[:10]
