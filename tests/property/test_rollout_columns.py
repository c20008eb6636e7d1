"""Deployments in columns say what a list of plain values says, whatever is written to them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.rollout.state import members as members_module
from fleet.rollout.state.columns import KINDS, PAGE_SIZE, Attempt, Deployment, back_id, forward_id
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.editing import Editing
from fleet.rollout.state.members import Members
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

COUNT = 2 * PAGE_SIZE + 40
STAGES = 3
CAUSES = st.none() | st.builds(Cause, st.sampled_from(["no_space", "trial_failed"]), st.text(max_size=5))
TIMES = st.none() | st.floats(0, 1e10)
PLACES = st.sampled_from([0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 7, 2 * PAGE_SIZE, COUNT - 1])


def attempts(deployment_id: str) -> st.SearchStrategy[Attempt]:
    return st.builds(
        Attempt,
        st.just(deployment_id),
        st.sampled_from(DeploymentState),
        st.floats(0, 1e10),
        TIMES,
        CAUSES,
    )


@st.composite
def deployments(draw: st.DrawFn, index: int) -> Deployment:
    """Any value that the engine could ever give a place."""
    tries = draw(st.integers(0, 10))
    return Deployment(
        index,
        f"cam-{index}",
        index % STAGES,
        draw(st.none() | st.integers(1, 2**62)),
        draw(attempts(forward_id(9, index, tries))),
        draw(st.none() | attempts(back_id(9, index))),
        draw(TIMES),
        draw(st.integers(-1, 31)),
        draw(st.integers(0, 2**16 - 1)),
        tries,
        draw(TIMES),
    )


def plain() -> list[Deployment]:
    waiting = (Attempt(forward_id(9, i), DeploymentState.QUEUED, 1.0) for i in range(COUNT))
    return [Deployment(i, f"cam-{i}", i % STAGES, 1, attempt) for i, attempt in enumerate(waiting)]


def tally(values: list[Deployment]) -> tuple[tuple[int, ...], ...]:
    counts = [[0] * KINDS for _ in range(STAGES)]
    for value in values:
        waits = value.attempt.state is DeploymentState.QUEUED and value.attempt.ordered_s is None
        counts[value.stage][0 if waits else 1 + list(DeploymentState).index(value.attempt.state)] += 1
    return tuple(map(tuple, counts))


def canceled(value: Deployment, cause: Cause) -> Deployment:
    attempt = msgspec.structs.replace(
        value.attempt, state=DeploymentState.CANCELED, since_s=5.0, ordered_s=4.0, cause=cause
    )
    return msgspec.structs.replace(value, attempt=attempt, due_s=None)


COLUMNS: dict[str, Any] = {
    "state": list(DeploymentState).index(DeploymentState.CANCELED),
    "since_s": 5.0,
    "ordered_s": 4.0,
    "due_s": np.nan,
}


@given(st.data())
@settings(max_examples=examples(60), deadline=None, derandomize=True)
def test_columns_and_plain_values_go_the_same_way(data: st.DataObject) -> None:
    expected = plain()
    columns = Deployments.of(9, expected)
    counts = tally(expected)
    for _ in range(data.draw(st.integers(1, 4))):
        before, known = columns, list(expected)
        editing = Editing(columns, counts)
        for place in data.draw(st.lists(PLACES, max_size=6)):
            expected[place] = data.draw(deployments(place))
            editing.put(expected[place])
            assert editing.get(place) == expected[place]
        if many := sorted(data.draw(st.sets(PLACES))):
            cause = Cause("canceled", "Enough.")
            editing.assign(np.array(many), cause=cause, **COLUMNS)
            for place in many:
                expected[place] = canceled(expected[place], cause)
        columns, counts = editing.finished(), editing.tally
        assert list(columns) == expected
        assert counts == tally(expected) == tuple(map(tuple, columns.tally(STAGES).tolist()))
        assert list(before) == known, "what was given stays as it was"
        differ = [i for i, (old, new) in enumerate(zip(known, expected, strict=True)) if old != new]
        assert set(differ) <= set(columns.changed_since(before).tolist())
        due = [value.due_s for value in expected if value.due_s is not None]
        assert Editing(columns, counts).least("due_s") == min(due, default=None)
    assert Deployments.of(9, list(columns)) == columns


def test_only_what_changed_is_said_to_have_changed() -> None:
    columns = Deployments.of(9, plain())
    editing = Editing(columns, tally(plain()))
    editing.put(canceled(plain()[PAGE_SIZE + 3], Cause("canceled", "Enough.")))
    editing.put(plain()[2])
    assert editing.finished().changed_since(columns).tolist() == [PAGE_SIZE + 3]
    assert columns.changed_since(None).tolist() == list(range(COUNT))
    others = Deployments.of(9, [msgspec.structs.replace(v, device_id=f"x{v.index}") for v in plain()])
    assert len(others.changed_since(columns)) == COUNT, "the same rows of other devices are others"


@given(
    st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=40),
    st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=10),
)
@settings(deadline=None, derandomize=True)
def test_members_are_found_and_others_are_not(first: list[str], then: list[str]) -> None:
    joined = [name for name in then if name not in first]
    members = Members.of(first).plus(joined)
    names = first + joined
    assert len(members) == len(names)
    assert members.device_ids(np.arange(len(names))) == names
    assert [members.place(name) for name in names] == list(range(len(names)))
    assert members == Members.of(names)
    assert members.extends(Members.of(first))
    assert members.place("nobody of these") is None
    assert members.places([*names, "nobody of these"]) == [*range(len(names)), None]
    assert Members.of([]).places(["nobody"]) == [None]
    assert members.places([]) == []


def test_devices_of_one_hash_are_told_apart(monkeypatch: Any) -> None:
    same = type("Same", (), {"digest": lambda _: b"\0" * 8})()
    monkeypatch.setattr(members_module, "blake2b", lambda *_, **__: same)
    members = Members.of(["cam-1", "cam-2"]).plus(["cam-3"])
    assert [members.place(f"cam-{i}") for i in (1, 2, 3, 4)] == [0, 1, 2, None]


def test_what_is_written_after_the_end_is_written_to_pages_of_its_own() -> None:
    columns = Deployments.of(9, plain())
    editing = Editing(columns, tally(plain()))
    editing.note_counted(np.array([2, PAGE_SIZE]), 1)
    first = editing.finished()
    editing.note_counted(np.array([2]), 3)
    second = editing.finished()
    counted = [(one[2].counted_in, one[PAGE_SIZE].counted_in) for one in (columns, first, second)]
    assert counted == [(-1, -1), (1, 1), (3, 1)]
    assert editing.finished() is second
