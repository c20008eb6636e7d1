"""The contract of every store: what operators wish of devices, and the diagnostic bundles that come."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.errors import NotFound
from fleet.protocol.records import Diagnostics
from fleet.protocol.wishes import LogLevel, Wishes
from hub.store.protocols import Store
from hub.store.rows import Action, DeviceWishes, Hold
from tests.support.stores import add_device, incoming, records_after

HELD = DeviceWishes(held=Hold(5.0, "ana", "a crash test"))
DID = Action(5.0, "ana", "Updates held: a crash test")


def test_a_wish_is_remembered_with_who_did_it_and_raises_the_sequence_number(store: Store) -> None:
    add_device(store, "cam-1")
    assert store.wishes("cam-1") == DeviceWishes()
    assert store.wish("cam-1", lambda _: HELD, DID) == HELD
    assert store.wishes("cam-1") == HELD
    assert store.desired("cam-1").wishes == Wishes(updates_held=True)
    assert store.desired("cam-1").sequence == 1
    assert store.actions("cam-1") == [DID]


def test_it_is_told_at_once_which_devices_are_held(store: Store) -> None:
    for name in ("cam-1", "cam-2", "cam-3"):
        add_device(store, name)
    assert store.held_devices() == set()
    store.wish("cam-1", lambda _: HELD, DID)
    store.wish("cam-2", lambda _: DeviceWishes(log_level=LogLevel.DEBUG), DID)
    store.wish("cam-3", lambda _: HELD, DID)
    store.wish("cam-3", lambda _: DeviceWishes(), DID)
    assert store.held_devices() == {"cam-1"}


def test_a_hold_holds_whatever_the_name_of_who_holds(store: Store) -> None:
    add_device(store, "cam-1")
    held = DeviceWishes(held=Hold(0.0, "", ""))
    assert store.wish("cam-1", lambda _: held, DID) == held
    assert store.wishes("cam-1") == held
    assert store.desired("cam-1").wishes == Wishes(updates_held=True)


def test_wishes_change_one_by_one_and_are_taken_back(store: Store) -> None:
    add_device(store, "cam-1")
    store.wish("cam-1", lambda _: HELD, DID)
    store.wish("cam-1", lambda w: msgspec.structs.replace(w, log_level=LogLevel.DEBUG), DID)
    store.wish("cam-1", lambda w: msgspec.structs.replace(w, diagnostics="d-1"), DID)
    assert store.desired("cam-1").wishes == Wishes(LogLevel.DEBUG, True, "d-1")
    store.wish("cam-1", lambda _: DeviceWishes(), DID)
    assert store.desired("cam-1").wishes == Wishes()
    assert store.desired("cam-1").sequence == 4


def test_what_changes_nothing_raises_nothing_and_is_no_action(store: Store) -> None:
    add_device(store, "cam-1")
    store.wish("cam-1", lambda _: HELD, DID)
    store.wish("cam-1", lambda wishes: wishes, DID)
    assert store.desired("cam-1").sequence == 1
    assert store.actions("cam-1") == [DID]


def test_another_reason_for_a_hold_is_an_action_and_no_new_assignment(store: Store) -> None:
    add_device(store, "cam-1")
    store.wish("cam-1", lambda _: HELD, DID)
    other = DeviceWishes(held=Hold(6.0, "bo", "still"))
    store.wish("cam-1", lambda _: other, Action(6.0, "bo", "Updates held: still"))
    assert store.wishes("cam-1") == other
    assert store.desired("cam-1").sequence == 1
    assert [action.by for action in store.actions("cam-1")] == ["bo", "ana"]
    assert [action.by for action in store.actions("cam-1", limit=1)] == ["bo"]


def test_nothing_is_wished_of_an_unknown_device(store: Store) -> None:
    with pytest.raises(NotFound):
        store.wish("cam-1", lambda _: HELD, DID)
    with pytest.raises(NotFound):
        store.add_action("cam-1", DID)
    assert store.wishes("cam-1") == DeviceWishes()


def _bundle(number: int, data: bytes = b"x") -> Diagnostics:
    return Diagnostics(at_s=10.0 + number, request_id=f"d-{number}", data=data)


def test_a_bundle_is_kept_once_however_often_it_comes(store: Store) -> None:
    add_device(store, "cam-1")
    assert store.add_records([incoming("cam-1", 1, _bundle(1, b"first"))]) == 1
    assert store.add_records([incoming("cam-1", 1, _bundle(1, b"first"))]) == 0
    (row,) = store.diagnostics("cam-1")
    assert (row.request_id, row.at_s, row.received_at_s, row.size_bytes) == ("d-1", 11.0, 20.0, 5)
    assert store.diagnostics_data("cam-1", "d-1") == b"first"
    assert store.timeline("cam-1") == []
    (record,) = records_after(store, 0)
    assert isinstance(record.body, Diagnostics)
    assert record.body.data == b"", "the bytes stand in one place"


def test_of_each_device_the_newest_bundles_are_kept(store: Store) -> None:
    for device in ("cam-1", "cam-2"):
        add_device(store, device)
    store.add_records([incoming("cam-2", 1, _bundle(1))])
    for number in range(1, 9):
        store.add_records([incoming("cam-1", number, _bundle(number))])
    assert [row.request_id for row in store.diagnostics("cam-1")] == ["d-8", "d-7", "d-6", "d-5", "d-4"]
    assert [row.request_id for row in store.diagnostics("cam-2")] == ["d-1"]
    with pytest.raises(NotFound):
        store.diagnostics_data("cam-1", "d-1")
