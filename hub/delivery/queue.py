"""Which chunk to publish next: the decisions of delivery, without any effect.

A published chunk reaches every device that waits for its blob, so a chunk is queued once however many devices
ask for it. When the first device asks for a blob, its chunks wait `gather_s`, in which the other devices of
a stage come to the same want. Blobs take turns, one chunk each, so a small one does not wait behind a large
one.

A chunk that is asked for after it was published is queued again. A repetition reaches every device that still
misses anything of the blob, so the devices of a stage that come one after the other would pay for each other:
repetitions wait for more of them, twice ``gather_s``, and then four times. Chunks that were not published
yet do not wait longer. After `QUIET_S` without a chunk of the blob all is as at first.

What one device may cause to be sent is limited for each blob by a token bucket: `MAX_REPEATS` times the blob
at once, and as much again every `REFILL_S`. An honest device needs the blob once, and again what was lost.
Asking for what is queued already costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import NamedTuple

from fleet.protocol.chunks import indices_of

GATHER_S = 0.25
MAX_DOUBLINGS = 2
QUIET_S = 10.0
MAX_EPISODES = 256
MAX_QUEUED_CHUNKS = 65_536
MAX_REPEATS = 3
MIN_TOKENS = 16.0
REFILL_S = 600.0
MAX_BUCKETS = 20_000


class Chunk(NamedTuple):
    """A chunk of a blob."""

    sha256: str
    number: int


class Admission(NamedTuple):
    """What became of a want, in chunks.

    Attributes:
        queued: Newly queued.
        limited: Not queued because the device has asked too often.
        dropped: Not queued because the queue is full; the device asks again.
    """

    queued: int
    limited: int
    dropped: int


class ChunkQueue:
    """The chunks to publish.

    Args:
        gather_s: How long the first want of a blob waits for others; repetitions wait longer.
        max_chunks: Most chunks in the queue.
    """

    def __init__(self, *, gather_s: float = GATHER_S, max_chunks: int = MAX_QUEUED_CHUNKS) -> None:
        self._gather_s = gather_s
        self._max_chunks = max_chunks
        self._blobs: OrderedDict[tuple[str, bool], _Pending] = (
            OrderedDict()
        )  # by whether they are repetitions
        self._episodes: OrderedDict[str, _Episode] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(
        self, device_id: str, sha256: str, missing: tuple[tuple[int, int], ...], *, chunks: int, now_s: float
    ) -> Admission:
        """Queue what a device misses.

        Args:
            device_id: Who asks.
            sha256: The blob.
            missing: Ranges of chunk numbers, see `fleet.protocol.chunks`.
            chunks: How many chunks the blob has.
            now_s: A monotonic time, seconds.
        """
        bucket = self._bucket(device_id, sha256, chunks, now_s)
        published = self._published(sha256, now_s)
        queued = limited = dropped = 0
        for index in islice(indices_of(missing, chunks), chunks):  # overlapping ranges name no more than all
            key = (sha256, index in published)
            pending = self._blobs.get(key)
            if pending is not None and index in pending.indices:
                continue
            if self._size >= self._max_chunks:
                dropped += 1
            elif bucket.take():
                if pending is None:
                    pending = self._blobs[key] = _Pending(now_s + self._wait_s(key))
                pending.indices[index] = None
                self._size += 1
                queued += 1
            else:
                limited += 1
        return Admission(queued, limited, dropped)

    def next(self, now_s: float) -> Chunk | None:
        """Take the next chunk out of the queue, or return None if none is due."""
        for key, pending in self._blobs.items():
            if pending.due_s > now_s:
                continue
            index = next(iter(pending.indices))
            del pending.indices[index]
            self._size -= 1
            self._blobs.move_to_end(key)
            if not pending.indices:
                del self._blobs[key]
            self._note(key[0], index, now_s)
            return Chunk(key[0], index)
        return None

    def due_in_s(self, now_s: float) -> float | None:
        """Return how long until a chunk is due; None if the queue is empty."""
        soonest_s = min((pending.due_s for pending in self._blobs.values()), default=None)
        return None if soonest_s is None else max(0.0, soonest_s - now_s)

    def discard(self, sha256: str) -> int:
        """Forget a blob's chunks; return how many there were."""
        found = [self._blobs.pop((sha256, again), None) for again in (False, True)]
        forgotten = sum(len(pending.indices) for pending in found if pending is not None)
        self._size -= forgotten
        return forgotten

    def _published(self, sha256: str, now_s: float) -> set[int]:
        """Return the chunks of a blob that were published lately."""
        episode = self._episodes.get(sha256)
        if episode is not None and now_s - episode.last_s > QUIET_S:
            del self._episodes[sha256]
            episode = None
        return set() if episode is None else episode.numbers

    def _wait_s(self, key: tuple[str, bool]) -> float:
        """Return how long chunks that are queued now wait for other devices."""
        sha256, again = key
        if not again:
            return self._gather_s
        episode = self._episodes[sha256]
        episode.repetitions = min(episode.repetitions + 1, MAX_DOUBLINGS)
        return self._gather_s * 2.0**episode.repetitions

    def _note(self, sha256: str, index: int, now_s: float) -> None:
        episode = self._episodes.setdefault(sha256, _Episode())
        episode.last_s = now_s
        episode.numbers.add(index)
        self._episodes.move_to_end(sha256)
        if len(self._episodes) > MAX_EPISODES:
            self._episodes.popitem(last=False)

    def _bucket(self, device_id: str, sha256: str, chunks: int, now_s: float) -> _Bucket:
        key = (device_id, sha256)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(max(MIN_TOKENS, MAX_REPEATS * chunks), now_s)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.refill(now_s)
        return bucket


class _Pending:
    """The queued chunks of one blob: numbers in the order in which they were asked for."""

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self.indices: dict[int, None] = {}


class _Episode:
    """What was published of one blob, until a quiet time."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.numbers: set[int] = set()
        self.repetitions = 0


class _Bucket:
    """Tokens that one device has for one blob."""

    def __init__(self, capacity: float, now_s: float) -> None:
        self._capacity = self._tokens = capacity
        self._at_s = now_s

    def refill(self, now_s: float) -> None:
        gained = (now_s - self._at_s) * self._capacity / REFILL_S
        self._tokens = min(self._capacity, self._tokens + gained)
        self._at_s = now_s

    def take(self) -> bool:
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
