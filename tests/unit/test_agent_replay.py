"""What a device remembers of assignments when its files are damaged, and what it takes for a repetition."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.trust.director import ACCEPTED_FILE, KEYS_FILE, Director
from fleet.protocol.assignment import Assignment, ModelOrder
from fleet.protocol.director import DirectorKeys
from fleet.protocol.errors import AssignmentReplayed, MusterError, SignatureInvalid, StorageCorrupt
from tests.support.agent_repository import DirectorKey

NOW_S = 1_000_000
KEY, STRANGER = DirectorKey(), DirectorKey()
KEYS = DirectorKeys((KEY.public.hex(),))


def assignment(sequence: int, version: int = 1, *, issued_at_s: int = NOW_S) -> Assignment:
    order = ModelOrder("digits", version, bytes(32), "onnx-fp32", "d-1")
    return Assignment("dev-1", sequence, issued_at_s, issued_at_s + 60, (order,))


def accepting_nine(folder: Path) -> Director:
    director = Director(folder, "dev-1")
    director.load()
    director.trust(KEYS)
    director.accept(KEY.sign(assignment(9)), now_s=NOW_S)
    return director


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"keys": ["00"]}'])
def test_damaged_keys_leave_the_memory_of_sequence_numbers(tmp_path: Path, damage: bytes) -> None:
    accepting_nine(tmp_path)
    (tmp_path / KEYS_FILE).write_bytes(damage)
    again = Director(tmp_path, "dev-1")
    with pytest.raises(SignatureInvalid):
        again.load()
    assert again.sequence == 9
    again.trust(KEYS)
    assert again.last_assignment() == assignment(9)
    for old in (5, 9):
        with pytest.raises(AssignmentReplayed):
            again.accept(KEY.sign(assignment(old)), now_s=NOW_S)
    assert again.accept(KEY.sign(assignment(10)), now_s=NOW_S).sequence == 10
    restarted = Director(tmp_path, "dev-1")
    assert restarted.load() == assignment(10)


@pytest.mark.parametrize("kind", ["emptied", "garbage", "a folder"])
def test_a_memory_that_cannot_be_read_lets_nothing_in(tmp_path: Path, kind: str) -> None:
    accepting_nine(tmp_path)
    path = tmp_path / ACCEPTED_FILE
    if kind == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(b"" if kind == "emptied" else b"\xc1")
    again = Director(tmp_path, "dev-1")
    with pytest.raises(StorageCorrupt):
        again.load()
    again.trust(KEYS)
    for sequence in (5, 99):
        with pytest.raises(StorageCorrupt):
            again.accept(KEY.sign(assignment(sequence)), now_s=NOW_S)


def test_the_same_orders_signed_anew_are_a_repetition(tmp_path: Path) -> None:
    director = accepting_nine(tmp_path)
    assert director.repeats_last(KEY.sign(assignment(9, issued_at_s=NOW_S + 5)))
    restarted = Director(tmp_path, "dev-1")
    restarted.load()
    assert restarted.repeats_last(KEY.sign(assignment(9, issued_at_s=NOW_S + 5)))


@pytest.mark.parametrize(
    "other",
    [
        assignment(9, version=2),
        assignment(8),
        assignment(10),
        msgspec.structs.replace(assignment(9), device_id="dev-2"),
        msgspec.structs.replace(assignment(9), models=()),
    ],
)
def test_anything_else_is_no_repetition(tmp_path: Path, other: Assignment) -> None:
    assert not accepting_nine(tmp_path).repeats_last(KEY.sign(other))


def test_a_repetition_must_be_signed(tmp_path: Path) -> None:
    director = accepting_nine(tmp_path)
    for message in (STRANGER.sign(assignment(9)), KEY.sign(assignment(9))[:-1], b""):
        with pytest.raises(MusterError):
            director.repeats_last(message)
