"""Which chunk is next: once for everyone, in turns, and no device without limit."""

from __future__ import annotations

import pytest

from hub.delivery.queue import (
    LONGEST_WAIT,
    MAX_REPEATS,
    MIN_TOKENS,
    QUIET_S,
    REFILL_S,
    Chunk,
    ChunkQueue,
)

A, B = "a" * 64, "b" * 64


def _drained(queue: ChunkQueue, now_s: float) -> list[Chunk]:
    taken = []
    while (chunk := queue.next(now_s)) is not None:
        taken.append(chunk)
    return taken


def test_what_many_devices_miss_is_queued_once() -> None:
    queue = ChunkQueue(gather_s=0.0)
    for device in range(100):
        queue.add(f"cam-{device}", A, ((0, 10),), chunks=10, now_s=0.0)
    assert _drained(queue, 0.0) == [Chunk(A, i) for i in range(10)]
    assert len(queue) == 0


def test_the_first_want_waits_until_no_other_device_asks() -> None:
    queue = ChunkQueue(gather_s=1.0)
    queue.add("cam-1", A, ((0, 1),), chunks=4, now_s=10.0)
    assert queue.next(10.9) is None
    assert queue.due_in_s(10.25) == pytest.approx(0.75)
    queue.add("cam-2", A, ((0, 2),), chunks=4, now_s=10.9)
    assert queue.next(11.8) is None
    assert _drained(queue, 12.0) == [Chunk(A, 0), Chunk(A, 1)]
    assert queue.due_in_s(12.0) is None


def test_a_device_that_asks_twice_delays_nothing() -> None:
    queue = ChunkQueue(gather_s=1.0)
    for tenth in range(10):
        queue.add("cam-1", A, ((0, 1),), chunks=4, now_s=tenth / 10)
    assert queue.next(1.0) == Chunk(A, 0)


def test_devices_that_come_without_end_are_served_from_time_to_time() -> None:
    queue, now_s, served_s = ChunkQueue(gather_s=1.0), 0.0, []
    for device in range(60):
        now_s = device * 0.9
        queue.add(f"cam-{device}", A, ((0, 1),), chunks=1, now_s=now_s)
        served_s += [now_s for _ in _drained(queue, now_s)]
    assert len(served_s) == 2
    assert served_s[0] == pytest.approx(LONGEST_WAIT, abs=0.9)


def test_a_want_that_came_before_a_chunk_was_published_is_served_by_it() -> None:
    queue = ChunkQueue(gather_s=1.0)
    queue.add("cam-1", A, ((0, 2),), chunks=2, now_s=0.0)
    assert len(_drained(queue, 1.0)) == 2
    assert queue.add("cam-2", A, ((0, 2),), chunks=2, now_s=1.5, asked_s=0.9) == (0, 0, 0)
    assert queue.add("cam-3", A, ((0, 2),), chunks=2, now_s=1.5, asked_s=1.0).queued == 2


def test_what_is_going_is_not_queued_again_for_who_comes_meanwhile() -> None:
    queue = ChunkQueue(gather_s=1.0)
    queue.add("cam-1", A, ((0, 3),), chunks=3, now_s=0.0)
    assert queue.next(1.0) == Chunk(A, 0)
    assert queue.add("cam-2", A, ((0, 3),), chunks=3, now_s=1.0).queued == 1
    assert _drained(queue, 1.5) == [Chunk(A, 1), Chunk(A, 2)]


def test_a_repetition_waits_while_the_blob_is_published() -> None:
    queue = ChunkQueue(gather_s=1.0)
    queue.add("cam-1", A, ((0, 8),), chunks=8, now_s=0.0)
    assert queue.next(1.0) == Chunk(A, 0)
    queue.add("cam-2", A, ((0, 1),), chunks=8, now_s=1.0)
    assert [queue.next(float(second)) for second in range(2, 9)] == [Chunk(A, n) for n in range(1, 8)]
    assert queue.next(9.9) is None
    assert queue.next(10.0) == Chunk(A, 0)


def test_blobs_take_turns() -> None:
    queue = ChunkQueue(gather_s=0.0)
    queue.add("cam-1", A, ((0, 4),), chunks=4, now_s=0.0)
    queue.add("cam-2", B, ((0, 2),), chunks=2, now_s=0.0)
    assert _drained(queue, 0.0) == [
        Chunk(A, 0),
        Chunk(B, 0),
        Chunk(A, 1),
        Chunk(B, 1),
        Chunk(A, 2),
        Chunk(A, 3),
    ]


def test_a_chunk_asked_for_after_it_was_sent_is_queued_again_behind_the_rest() -> None:
    queue = ChunkQueue(gather_s=1.0)
    queue.add("cam-1", A, ((0, 3),), chunks=3, now_s=0.0)
    assert queue.next(1.0) == Chunk(A, 0)
    queue.add("cam-2", A, ((0, 3),), chunks=3, now_s=1.0)
    assert _drained(queue, 1.0) == [Chunk(A, 1), Chunk(A, 2)]
    assert _drained(queue, 3.0) == [Chunk(A, 0)]


def test_devices_that_come_one_after_the_other_gather_longer_each_time_until_it_was_quiet() -> None:
    queue, now_s, waits = ChunkQueue(gather_s=1.0), 0.0, []
    for number in range(6):
        queue.add(f"cam-{number}", A, ((0, 2),), chunks=2, now_s=now_s)
        wait_s = queue.due_in_s(now_s)
        assert wait_s is not None
        waits.append(wait_s)
        now_s += wait_s
        assert len(_drained(queue, now_s)) == 2
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0, 4.0]
    queue.add("late", A, ((0, 2),), chunks=2, now_s=now_s + QUIET_S + 1.0)
    assert queue.due_in_s(now_s + QUIET_S + 1.0) == 1.0


def test_what_was_not_published_yet_waits_no_longer_than_at_first() -> None:
    queue = ChunkQueue(gather_s=1.0)
    queue.add("cam-1", A, ((0, 2),), chunks=4, now_s=0.0)
    assert len(_drained(queue, 1.0)) == 2
    queue.add("cam-1", A, ((1, 3),), chunks=4, now_s=1.0)
    queue.add("cam-2", A, ((2, 1),), chunks=4, now_s=1.9)
    assert _drained(queue, 2.0) == [Chunk(A, 2), Chunk(A, 3)]
    assert _drained(queue, 4.0) == [Chunk(A, 1)]


@pytest.mark.parametrize("ranges", [((5, 3),), ((0, 0),), ((2**53, 2**53),), ()])
def test_what_the_blob_does_not_have_is_not_queued(ranges: tuple[tuple[int, int], ...]) -> None:
    queue = ChunkQueue(gather_s=0.0)
    assert queue.add("cam-1", A, ranges, chunks=5, now_s=0.0) == (0, 0, 0)
    assert queue.due_in_s(0.0) is None


def test_a_want_with_huge_overlapping_ranges_costs_no_more_than_the_blob() -> None:
    queue = ChunkQueue(gather_s=0.0)
    admission = queue.add("cam-1", A, ((0, 2**53),) * 64, chunks=50, now_s=0.0)
    assert admission == (50, 0, 0)


def test_a_device_that_asks_again_and_again_is_limited_and_others_are_not() -> None:
    queue, chunks = ChunkQueue(gather_s=0.0), 20
    sent = limited = 0
    for _ in range(100):
        limited += queue.add("greedy", A, ((0, chunks),), chunks=chunks, now_s=0.0).limited
        sent += len(_drained(queue, 0.0))
    assert sent == MAX_REPEATS * chunks
    assert sent + limited == 100 * chunks
    assert queue.add("modest", A, ((0, chunks),), chunks=chunks, now_s=0.0).queued == chunks
    assert queue.add("greedy", B, ((0, chunks),), chunks=chunks, now_s=0.0).queued == chunks


def test_a_limited_device_may_ask_again_later() -> None:
    queue = ChunkQueue(gather_s=0.0)
    for _ in range(int(MIN_TOKENS)):
        assert queue.add("cam-1", A, ((0, 1),), chunks=1, now_s=0.0).queued == 1
        _drained(queue, 0.0)
    assert queue.add("cam-1", A, ((0, 1),), chunks=1, now_s=0.0).limited == 1
    later_s = REFILL_S / MIN_TOKENS + 1
    assert queue.add("cam-1", A, ((0, 1),), chunks=1, now_s=later_s).queued == 1


def test_to_ask_for_what_is_queued_costs_nothing() -> None:
    queue = ChunkQueue(gather_s=1.0)
    for _ in range(1000):
        assert queue.add("cam-1", A, ((0, 4),), chunks=4, now_s=0.0).limited == 0
    assert len(queue) == 4


def test_a_full_queue_drops_and_says_so() -> None:
    queue = ChunkQueue(gather_s=0.0, max_chunks=5)
    assert queue.add("cam-1", A, ((0, 8),), chunks=8, now_s=0.0) == (5, 0, 3)
    assert queue.next(0.0) == Chunk(A, 0)
    assert queue.add("cam-1", B, ((0, 8),), chunks=8, now_s=0.0) == (1, 0, 7)
    assert len(queue) == 5


def test_a_discarded_blob_is_gone() -> None:
    queue = ChunkQueue(gather_s=0.0)
    queue.add("cam-1", A, ((0, 3),), chunks=3, now_s=0.0)
    queue.add("cam-1", B, ((0, 1),), chunks=1, now_s=0.0)
    assert queue.discard(A) == 3
    assert queue.discard(A) == 0
    assert _drained(queue, 0.0) == [Chunk(B, 0)]
    assert len(queue) == 0
