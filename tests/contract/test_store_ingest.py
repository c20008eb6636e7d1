"""The contract of every store: batches, which numbers were received, deletion, dead letters, quarantines."""

from __future__ import annotations

import pytest

from fleet.protocol.errors import Cause, NotFound
from fleet.protocol.messages import Hello, Presence, StateReport
from fleet.protocol.records import Incident, RecordBody, TelemetryWindow
from hub.store.intake_rows import Intake, Said
from hub.store.protocols import Store
from hub.store.rows import DeadLetter, IncomingRecord, QuarantineRow
from tests.support.stores import CAPABILITIES, add_device, incident, incoming, records_after, report, window

WINDOWS = 150
"""More than share a row."""


def letter(device_id: str | None, text: str) -> DeadLetter:
    """Return a message that could not be taken in."""
    return DeadLetter(f"topic/{device_id}", 1.0, Cause("invalid_message", text), b"\x00", device_id)


def test_many_windows_are_given_back_as_they_came_and_in_order(store: Store) -> None:
    sent = [
        incoming(f"cam-{number % 3}", number, window(predictions=number + 1)) for number in range(WINDOWS)
    ]
    assert store.add_records(sent) == WINDOWS
    raw = store.raw_records_after(0)
    assert [(record.device_id, record.data) for record in raw] == [(r.device_id, r.data) for r in sent]
    bodies = [record.body for record in records_after(store, 0)]
    assert [body.predictions for body in bodies if isinstance(body, TelemetryWindow)] == list(
        range(1, WINDOWS + 1)
    )


def test_reading_in_steps_gives_each_record_once(store: Store) -> None:
    bodies = [window(model=f"m{number % 4}") if number % 5 else report() for number in range(WINDOWS)]
    store.add_records([incoming("cam-1", number, body) for number, body in enumerate(bodies)])
    for model in (None, "m1"):
        read, position = [], 0
        while step := store.raw_records_after(position, model=model, limit=10):
            read += step
            position = step[-1].position
        assert [record.data for record in read] == [r.data for r in store.raw_records_after(0, model=model)]
    assert len(store.raw_records_after(0)) == WINDOWS


def test_a_window_whose_counts_cannot_be_read_is_kept_as_it_came_and_holds_up_nothing(store: Store) -> None:
    good = incoming("cam-1", 1, window())
    odd = [
        IncomingRecord(each.device_id, 20.0, each.head, each.data.replace(b"latency", b"profile"))
        for each in (incoming("cam-1", number, window()) for number in range(2, 9))
    ]
    assert store.add_records(odd) == len(odd)
    position = store.last_position()
    store.add_records([good])
    assert [record.body for record in records_after(store, position)] == [window()]
    assert [raw.data for raw in store.raw_records_after(0)] == [each.data for each in [*odd, good]]


def test_what_was_deleted_stays_known(store: Store) -> None:
    old = [incoming("cam-1", number, window()) for number in range(WINDOWS)]
    store.add_records([*old, incoming("cam-1", WINDOWS, incident())])
    position = store.last_position()
    deleted = 0
    while rows := store.delete_records(upto_position=position, older_than_s=21.0, kinds=("window",), limit=2):
        assert rows <= 2
        deleted += rows
    assert deleted
    assert [record.body for record in records_after(store, 0)] == [incident()]
    assert store.add_records(old) == 0
    assert store.add_records([incoming("cam-1", WINDOWS + 1, window())]) == 1


def test_only_what_is_old_read_and_of_the_kind_is_deleted(store: Store) -> None:
    bodies: list[RecordBody] = [window(), report(), window(), incident(), window()]
    for number, body in enumerate(bodies):
        store.add_records([incoming("cam-1", number, body)])
    first = store.raw_records_after(0, limit=1)[0].position
    assert store.delete_records(upto_position=first, older_than_s=20.0, kinds=("window", "incident")) == 0
    assert store.delete_records(upto_position=first, older_than_s=20.5, kinds=("incident",)) == 0
    assert store.delete_records(upto_position=first, older_than_s=20.5, kinds=("window",)) == 1
    assert store.delete_records(upto_position=10**9, older_than_s=20.5, kinds=("window", "deployment")) == 2


def test_positions_never_come_again_even_if_everything_is_old(store: Store) -> None:
    store.add_records([incoming("cam-1", 1, window())])
    position = store.last_position()
    store.delete_records(upto_position=position, older_than_s=1e12, kinds=("window",))
    store.add_records([incoming("cam-1", 2, window())])
    assert store.last_position() > position


def test_a_batch_is_stored_whole(store: Store) -> None:
    for device_id in ("cam-1", "cam-2"):
        add_device(store, device_id)
    state = StateReport(5.0, 7, ())
    new = store.take_in(
        Intake(
            now_s=60.0,
            records=[incoming("cam-1", 1, window()), incoming("cam-1", 1, window())],
            letters=[letter("cam-1", "No.")],
            objections={
                ("cam-1", incoming("cam-1", 1, window()).head.stream, 1): letter("cam-1", "Contradiction."),
                ("cam-1", "f" * 16, 1): letter("cam-1", "It was received before."),
            },
            devices={
                "cam-1": Said(online=True, hello=Hello(1, 9, CAPABILITIES), report=state),
                "cam-2": Said(online=Presence(online=False).online),
                "nobody": Said(online=True),
            },
        )
    )
    assert new == 1
    assert [each.cause.detail for each in store.dead_letters()] == ["Contradiction.", "No."]
    one, two = store.device("cam-1"), store.device("cam-2")
    assert (one.online, one.reported, one.last_seen_at_s) == (True, state, 60.0)
    assert (one.sequence, one.accepted_sequence) == (10, 7)
    assert (two.online, two.last_seen_at_s) == (False, 60.0)
    with pytest.raises(NotFound):
        store.device("nobody")


def test_dead_letters_are_bounded_and_one_device_cannot_push_out_the_others(store: Store) -> None:
    store.add_dead_letters([letter(f"cam-{number}", "Other.") for number in range(20)], kept=50)
    for _ in range(10):
        store.add_dead_letters([letter("loud", "Loud.") for _ in range(20)], kept=50)
    kept = [each.cause.detail for each in store.dead_letters(limit=1000)]
    assert (kept.count("Other."), kept.count("Loud.")) == (20, 5)
    store.add_dead_letters([letter(f"dog-{number}", "Newer.") for number in range(60)], kept=50)
    assert [each.cause.detail for each in store.dead_letters(limit=1000)] == ["Newer."] * 50
    assert store.count_dead_letters() == 280


def test_a_quarantine_is_kept_until_it_is_ended_and_stands_in_the_timeline(store: Store) -> None:
    add_device(store, "cam-1")
    row = QuarantineRow("cam-1", 100.0, 200.0)
    cause = Cause("quarantined", "Too much.")
    store.begin_quarantine(row, cause)
    later = QuarantineRow("cam-1", 150.0, 250.0)
    store.begin_quarantine(later, cause)
    assert store.quarantines() == store.quarantines(device_id="cam-1") == [later]
    assert store.quarantines(device_id="cam-2") == []
    assert [record.body for record in store.timeline("cam-1")] == [
        Incident(150.0, cause),
        Incident(100.0, cause),
    ]
    store.end_quarantine("cam-1")
    assert store.quarantines() == []
