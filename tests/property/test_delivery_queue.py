"""Whatever devices ask and whenever: each want is answered, soon, and by few copies."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from hub.delivery.queue import LONGEST_WAIT, QUIET_S, Chunk, ChunkQueue
from hub.delivery.settling import CROWD, Settling

BLOBS = ["a" * 64, "b" * 64]
CHUNKS = 4
GATHER_S = 0.25
LONGEST_S = LONGEST_WAIT * GATHER_S
ROUNDING_S = 1e-6


class Asked(NamedTuple):
    """A want: when it had come, when it was handled, and of what."""

    came_s: float
    handled_s: float
    chunk: Chunk


times = st.floats(0.0, 60.0).map(lambda value: round(value, 3))
lags = st.floats(0.0, 3.0).map(lambda value: round(value, 3))
wants = st.lists(st.tuples(times, lags, st.sampled_from(BLOBS), st.integers(0, CHUNKS - 1)), max_size=40)


def _served(asked: list[Asked]) -> list[tuple[float, Chunk]]:
    """Hand each want over when it is handled, and publish what is due at once; return what went when."""
    queue, sent, now_s = ChunkQueue(gather_s=GATHER_S), [], 0.0

    def publish_until(end_s: float) -> None:
        nonlocal now_s
        while (wait_s := queue.due_in_s(now_s)) is not None and now_s + wait_s <= end_s:
            now_s += wait_s + ROUNDING_S
            while (chunk := queue.next(now_s)) is not None:
                sent.append((now_s, chunk))
        now_s = max(now_s, end_s)

    for number, want in enumerate(sorted(asked, key=lambda want: want.handled_s)):
        publish_until(want.handled_s)
        first = want.chunk.number
        queue.add(
            f"cam-{number}", want.chunk.sha256, ((first, 1),), chunks=CHUNKS, now_s=now_s, asked_s=want.came_s
        )
    publish_until(1000.0)
    assert len(queue) == 0
    return sent


@given(wants)
def test_every_want_is_answered_after_it_came_and_soon_and_nothing_is_sent_that_nobody_waits_for(
    drawn: list[tuple[float, float, str, int]],
) -> None:
    asked = [Asked(came_s, came_s + lag_s, Chunk(blob, n)) for came_s, lag_s, blob, n in drawn]
    sent = _served(asked)
    for want in asked:
        answers = [at_s for at_s, chunk in sent if chunk == want.chunk and at_s > want.came_s]
        assert answers
        assert answers[0] <= want.handled_s + LONGEST_S + 0.01
    last_s: dict[Chunk, float] = {}
    for at_s, chunk in sent:
        since_s = last_s.get(chunk, -1.0)
        assert any(since_s <= want.came_s <= at_s for want in asked if want.chunk == chunk)
        last_s[chunk] = at_s


@given(st.lists(times, min_size=1, max_size=60))
def test_a_crowd_gets_few_copies_however_its_devices_come(came_s: list[float]) -> None:
    sent = _served([Asked(at_s, at_s, Chunk(BLOBS[0], 0)) for at_s in came_s])
    pauses = sum(later - earlier >= GATHER_S for earlier, later in pairwise(sorted(came_s)))
    assert len(sent) <= (max(came_s) - min(came_s)) / LONGEST_S + 2 + pauses


@given(st.lists(times, max_size=30), st.floats(QUIET_S, 60.0))
def test_a_device_alone_is_served_after_one_pause_once_it_was_quiet(
    before_s: list[float], quiet_s: float
) -> None:
    late_s = max(before_s, default=0.0) + LONGEST_S + quiet_s + 0.1
    sent = _served([Asked(at_s, at_s, Chunk(BLOBS[0], 0)) for at_s in [*before_s, late_s]])
    assert late_s + GATHER_S <= sent[-1][0] <= late_s + GATHER_S + 0.01


@given(st.lists(times, max_size=30))
def test_a_device_alone_never_waits_longer_than_the_longest_pause(before_s: list[float]) -> None:
    late_s = max(before_s, default=0.0) + LONGEST_S + 0.1
    sent = _served([Asked(at_s, at_s, Chunk(BLOBS[0], 0)) for at_s in [*before_s, late_s]])
    assert sent[-1][0] <= late_s + 4 * GATHER_S + 0.01


@given(st.lists(st.tuples(times, st.integers(0, 2 * CROWD)), max_size=20), st.floats(0.0, 10.0))
def test_demand_settles_a_pause_after_the_last_new_device_and_by_the_longest_wait(
    joined: list[tuple[float, int]], longest_s: float
) -> None:
    settling, seen, last_s = Settling(0.0, pause_s=1.0, crowd_pause_s=4.0, longest_s=longest_s), set(), 0.0
    for at_s, device in sorted(joined):
        settling.join(f"cam-{device}", at_s)
        if device not in seen:
            seen.add(device)
            last_s = at_s
    assert min(last_s + 1.0, longest_s) <= settling.due_s <= min(last_s + 4.0, longest_s)


def test_a_crowd_has_the_longer_pause() -> None:
    settling, due_s = Settling(0.0, pause_s=1.0, crowd_pause_s=4.0, longest_s=9.0), []
    for device in range(2 * CROWD):
        settling.join(f"cam-{device}", 0.0)
        due_s.append(settling.due_s)
    assert due_s == sorted(due_s)
    assert (due_s[0], round(due_s[CROWD - 1], 9), round(due_s[-1], 9)) == (1.0, 4.0, 4.0)
