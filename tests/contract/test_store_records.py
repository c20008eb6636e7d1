"""The contract of every store: records and dead letters."""

from __future__ import annotations

import msgspec

from fleet.protocol.errors import Cause
from fleet.protocol.records import RecordBody
from hub.store.protocols import Store
from hub.store.rows import DeadLetter
from tests.support.stores import add_device, incident, incoming, records_after, report, window


def test_a_record_is_stored_once_however_often_it_comes(store: Store) -> None:
    add_device(store, "cam-1")
    assert store.add_records([incoming("cam-1", 1, window()), incoming("cam-1", 2, window())]) == 2
    assert store.add_records([incoming("cam-1", 2, window()), incoming("cam-1", 1, window())]) == 0
    assert store.add_records([incoming("cam-1", 1, window(), stream="f" * 16)]) == 1
    assert len(records_after(store, 0)) == 3


def test_a_record_that_comes_twice_in_one_batch_counts_once(store: Store) -> None:
    add_device(store, "cam-1")
    assert store.add_records([incoming("cam-1", 1, window())] * 2) == 1
    assert len(records_after(store, 0)) == 1


def test_every_second_number_is_known_however_many_there_are(store: Store) -> None:
    add_device(store, "cam-1")
    for first, new in ((0, 1000), (2000, 1000), (0, 0), (2000, 0), (1, 1000)):
        sent = [incoming("cam-1", number, incident()) for number in range(first, first + 2000, 2)]
        assert store.add_records(sent) == new


def test_equal_numbers_of_two_devices_are_two_records(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    assert store.add_records([incoming("cam-1", 1, window()), incoming("cam-2", 1, window())]) == 2
    assert [record.device_id for record in records_after(store, 0)] == ["cam-1", "cam-2"]


def test_records_are_read_in_the_order_in_which_they_were_stored(store: Store) -> None:
    add_device(store, "cam-1")
    bodies: list[RecordBody] = [window(), report(), incident(), window(model="letters")]
    store.add_records([incoming("cam-1", number, body) for number, body in enumerate(bodies)])
    everything = records_after(store, 0)
    assert [record.body for record in everything] == bodies
    assert [record.body for record in records_after(store, 0, model="digits")] == bodies[:2]
    assert [r.body for r in records_after(store, everything[1].position, limit=1)] == [bodies[2]]
    assert store.last_position() == everything[-1].position


def test_large_records_are_read_a_few_at_a_time(store: Store) -> None:
    add_device(store, "cam-1")
    large = [
        msgspec.structs.replace(incoming("cam-1", number, incident()), data=bytes(2**20))
        for number in range(100)
    ]
    store.add_records(large)
    position, read = 0, []
    while raw := store.raw_records_after(position):
        assert sum(len(record.data) for record in raw) <= 40 * 2**20
        read += [record.position for record in raw]
        position = read[-1]
    assert len(read) == len(set(read)) == 100


def test_a_timeline_shows_reports_and_incidents_newest_first(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    bodies: list[RecordBody] = [report(), window(), incident()]
    store.add_records([incoming("cam-1", n, b) for n, b in enumerate(bodies)])
    store.add_records([incoming("cam-2", 1, incident())])
    timeline = store.timeline("cam-1")
    assert [record.body for record in timeline] == [incident(), report()]
    assert [r.body for r in store.timeline("cam-1", before=timeline[0].position)] == [report()]


def test_dead_letters_are_kept_with_their_cause(store: Store) -> None:
    letters = [DeadLetter(f"topic/{n}", float(n), Cause("invalid_message", "No."), b"\x00") for n in range(3)]
    store.add_dead_letters(letters)
    assert store.dead_letters(limit=2) == [letters[2], letters[1]]
    assert store.count_dead_letters() == 3
