"""The contract of every store: devices, what they report, and what they should run."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.board import BoardWindow
from fleet.protocol.errors import NotFound
from fleet.protocol.messages import ModelState, StateReport
from hub.store.protocols import Store
from hub.store.rows import Action, Desired, OrderChange
from tests.support.stores import CAPABILITIES, DIGEST, add_device, greeting, new_rollout, order, say

STATE = StateReport(
    at_s=60.0,
    sequence=3,
    models=(ModelState("digits", 1, DIGEST, "onnx-fp32", "COMMITTED", "r1-0f"),),
)


def test_a_device_is_found_with_what_it_said(store: Store) -> None:
    add_device(store, "cam-1")
    say(store, "cam-1", 61.0, report=STATE)
    device = store.device("cam-1")
    assert device.reported == STATE
    assert (device.online, device.accepted_sequence, device.last_seen_at_s) == (True, 3, 61.0)
    assert device.attributes == {"site": "lyon"}
    assert device.capabilities == CAPABILITIES


def test_an_unknown_device_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.device("cam-1")
    with pytest.raises(NotFound):
        store.desired("cam-1")
    say(store, "cam-1", 61.0, hello=greeting(), report=STATE)
    assert store.devices() == []


def test_presence_is_remembered(store: Store) -> None:
    add_device(store, "cam-1")
    say(store, "cam-1", 1.0)
    assert store.device("cam-1").online
    say(store, "cam-1", 2.0, online=False)
    assert not store.device("cam-1").online


def test_devices_come_in_pages(store: Store) -> None:
    for name in ("cam-3", "cam-1", "cam-2"):
        add_device(store, name)
    assert [d.device_id for d in store.devices(limit=2)] == ["cam-1", "cam-2"]
    assert [d.device_id for d in store.devices(after="cam-2")] == ["cam-3"]
    assert store.password_hashes() == {f"cam-{n}": f"hash of cam-{n}" for n in (1, 2, 3)}


def _changed(store: Store, after: int = 0) -> list[str]:
    return [change.device_id for change in store.device_changes(after=after)]


def test_what_a_device_is_changes_under_a_higher_number_each_time(store: Store) -> None:
    for name in ("cam-3", "cam-1", "cam-2"):
        add_device(store, name)
    assert _changed(store) == ["cam-3", "cam-1", "cam-2"]
    first, second, read = store.device_changes()
    assert store.device_changes(after=first.number, limit=1) == [second]
    say(store, "cam-3", 1.0, hello=greeting(), report=STATE)  # as it enrolled
    say(store, "cam-1", 2.0, online=False)
    _apply(store, OrderChange("cam-1", "digits", order(1)))
    assert _changed(store, read.number) == [], "what it does is no change of what it is"
    more = msgspec.structs.replace(greeting().capabilities, memory_bytes=2**31)
    say(store, "cam-3", 3.0, hello=greeting(more))
    store.tag("cam-1", add=["lab", "old"], remove=[], action=Action(1.0, "ann", "Tagged."))
    assert _changed(store, read.number) == ["cam-3", "cam-1"]
    read = store.device_changes()[-1]
    store.tag("cam-1", add=["lab"], remove=[], action=Action(2.0, "ann", "Tagged again."))
    assert _changed(store, read.number) == []
    store.tag("cam-3", add=[], remove=["none"], action=Action(3.0, "ann", "Untagged."))
    store.tag("cam-1", add=[], remove=["lab"], action=Action(4.0, "ann", "Untagged."))
    add_device(store, "cam-0")
    assert _changed(store, read.number) == ["cam-1", "cam-0"]
    assert len(_changed(store)) == 4, "each device once"


def _apply(store: Store, *changes: OrderChange) -> None:
    row = store.create_rollout(new_rollout, 1.0)
    store.apply_step(row.state, previous=row.state, position=0, changes=changes)


def test_each_change_of_orders_raises_the_sequence_number(store: Store) -> None:
    add_device(store, "cam-1")
    assert store.desired("cam-1") == Desired(0, ())
    _apply(store, OrderChange("cam-1", "digits", order(1)))
    _apply(store, OrderChange("cam-1", "letters", order(4, model="letters")))
    _apply(store, OrderChange("cam-1", "digits", order(2)))
    assert store.desired("cam-1") == Desired(3, (order(2), order(4, model="letters")))
    _apply(store, OrderChange("cam-1", "digits", None))
    assert store.desired("cam-1") == Desired(4, (order(4, model="letters"),))
    assert store.desired_versions("letters") == {"cam-1": 4}
    assert store.desired_versions("letters", ["cam-1", "cam-9"]) == {"cam-1": 4}
    assert store.desired_versions("letters", ["cam-9"]) == {}


def test_a_change_for_an_unknown_device_changes_nothing(store: Store) -> None:
    add_device(store, "cam-1")
    with pytest.raises(NotFound):
        _apply(store, OrderChange("cam-1", "digits", order(1)), OrderChange("cam-2", "digits", order(1)))
    assert store.desired("cam-1") == Desired(0, ())


def test_a_device_is_behind_until_it_accepted_the_sequence_number(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    _apply(store, OrderChange("cam-1", "digits", order(1)))
    assert store.behind() == {}, "a device that is away is told when it announces itself"
    say(store, "cam-1", 60.0)
    assert store.behind() == {"cam-1": 1}
    say(store, "cam-1", 70.0, hello=greeting(sequence=1))
    assert store.behind() == {}


def test_a_device_that_is_ahead_of_the_store_is_overtaken(store: Store) -> None:
    add_device(store, "cam-1")
    _apply(store, OrderChange("cam-1", "digits", order(1)))
    say(store, "cam-1", 70.0, hello=greeting(sequence=9))
    assert store.desired("cam-1").sequence == 10
    assert store.behind() == {"cam-1": 10}


def test_devices_that_were_throttled_are_counted_while_they_are_connected(store: Store) -> None:
    for number, throttled in enumerate((None, 0, 2, 2), start=1):
        add_device(store, f"cam-{number}")
        board = BoardWindow(1.0, 2.0, 6, throttled)
        say(store, f"cam-{number}", 3.0, report=msgspec.structs.replace(STATE, board=board))
    add_device(store, "cam-5")
    say(store, "cam-5", 3.0, report=STATE)
    assert store.count_throttled() == 2
    assert store.throttled_devices(limit=5) == [store.device("cam-3"), store.device("cam-4")]
    assert store.throttled_devices(limit=1) == [store.device("cam-3")]
    say(store, "cam-4", 4.0, online=False)
    assert store.count_throttled() == 1
    reported = store.device("cam-3").reported
    assert reported is not None
    assert reported.board == BoardWindow(1.0, 2.0, 6, 2)


def test_many_devices_are_read_at_once_and_unknown_ones_left_out(store: Store) -> None:
    names = ["cam-1", "cam-2", "cam-3"]
    for name in names:
        add_device(store, name)
    _apply(store, OrderChange("cam-1", "letters", order(4, model="letters")))
    _apply(store, OrderChange("cam-1", "digits", order(1)), OrderChange("cam-3", "digits", order(1)))
    asked = ["cam-3", "nobody", "cam-1", "cam-2"]
    assert store.devices_named(asked) == {name: store.device(name) for name in names}
    assert store.desired_of(asked) == {name: store.desired(name) for name in names}
    assert store.sequences(asked) == {name: store.desired(name).sequence for name in names}
    assert [each.model for each in store.desired_of(asked)["cam-1"].orders] == ["digits", "letters"]
    assert [store.desired_of([]), store.devices_named([]), store.sequences([])] == [{}, {}, {}]
