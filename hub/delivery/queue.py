"""Which chunk to publish next: the decisions of delivery, without any effect.

A published chunk reaches every device that waits for its blob, so a chunk is queued once however many devices
ask for it::

    wanted ─► waits in a round ── demand has settled ──► going ─► published ── wanted again ──► another round
                 ▲                                         ▲          ▲
                 └───────────── others who want it ────────┘          └── whoever asked before is served

- The first round of a blob waits until no other device has asked for `gather_s`, or four times that if many
  have (`hub.delivery.settling`): the devices of a stage come to the same want within seconds.
- While a blob is under way, what of it was not published yet waits `gather_s` and no longer. A large blob,
  asked for part by part, does not come slower for being wanted by many.
- What is wanted again waits until no other device asks and nothing of the blob is published: a repetition
  reaches everybody who still misses anything of the blob, so devices that come one after the other would pay
  for each other. The pause is twice ``gather_s``, then four times; after `QUIET_S` without a chunk of the
  blob all is as at first.
- No wait is longer than `LONGEST_WAIT` times ``gather_s``, half of the time after which an agent takes its
  want for lost.

A want takes a while from the socket to here, above all when thousands come. Its device subscribed before it
asked, so what was published since the want had reached the hub reaches the device, and is not queued again.

Blobs take turns, one chunk each, so a small one does not wait behind a large one.

What one device may cause to be sent is limited for each blob by a token bucket: `MAX_REPEATS` times the blob
at once, and as much again every `REFILL_S`. An honest device needs the blob once, and again what was lost.
Asking for what is queued already costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from math import inf
from typing import NamedTuple

from fleet.protocol.chunks import indices_of
from hub.delivery.settling import Settling

GATHER_S = 0.25
LONGEST_WAIT = 20
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
        gather_s: How long one device waits for others; crowds and repetitions wait longer.
        max_chunks: Most chunks in the queue.
    """

    def __init__(self, *, gather_s: float = GATHER_S, max_chunks: int = MAX_QUEUED_CHUNKS) -> None:
        self._gather_s = gather_s
        self._max_chunks = max_chunks
        self._blobs: OrderedDict[str, _Pending] = OrderedDict()
        self._episodes: OrderedDict[str, _Episode] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(
        self,
        device_id: str,
        sha256: str,
        missing: tuple[tuple[int, int], ...],
        *,
        chunks: int,
        now_s: float,
        asked_s: float | None = None,
    ) -> Admission:
        """Queue what a device misses.

        Args:
            device_id: Who asks.
            sha256: The blob.
            missing: Ranges of chunk numbers, see `fleet.protocol.chunks`.
            chunks: How many chunks the blob has.
            now_s: A monotonic time, seconds.
            asked_s: When the want had reached the hub, by the same clock; None stands for now.
        """
        asked_s = now_s if asked_s is None else asked_s
        bucket = self._bucket(device_id, sha256, chunks, now_s)
        episode = self._episode(sha256, now_s)
        pending = self._blobs.get(sha256) or _Pending()
        queued = limited = dropped = 0
        for index in islice(indices_of(missing, chunks), chunks):  # overlapping ranges name no more than all
            published_s = episode.published_s.get(index)
            if index in pending.going or (published_s is not None and published_s > asked_s):
                continue
            waiting = pending.round_with(index)
            if waiting is not None:
                waiting.settling.join(device_id, now_s)
            elif self._size >= self._max_chunks:
                dropped += 1
            elif bucket.take():
                again = published_s is not None
                if again not in pending.rounds:
                    settling = self._settling(episode, again=again, now_s=now_s)
                    pending.rounds[again] = _Round(settling)
                pending.rounds[again].indices[index] = None
                pending.rounds[again].settling.join(device_id, now_s)
                self._size += 1
                queued += 1
            else:
                limited += 1
        if queued:
            self._blobs[sha256] = pending
        return Admission(queued, limited, dropped)

    def next(self, now_s: float) -> Chunk | None:
        """Take the next chunk out of the queue, or return None if none is due."""
        for sha256, pending in self._blobs.items():
            pending.start_due(now_s)
            if not pending.going:
                continue
            index = next(iter(pending.going))
            del pending.going[index]
            self._size -= 1
            if pending.going or pending.rounds:
                self._blobs.move_to_end(sha256)
            else:
                del self._blobs[sha256]
            pending.delay_repetitions(now_s)
            self._note(sha256, index, now_s)
            return Chunk(sha256, index)
        return None

    def due_in_s(self, now_s: float) -> float | None:
        """Return how long until a chunk is due; None if the queue is empty."""
        soonest_s = min((pending.due_s() for pending in self._blobs.values()), default=None)
        return None if soonest_s is None else max(0.0, soonest_s - now_s)

    def discard(self, sha256: str) -> int:
        """Forget a blob's chunks; return how many there were."""
        pending = self._blobs.pop(sha256, None)
        forgotten = 0 if pending is None else len(pending)
        self._size -= forgotten
        return forgotten

    def _episode(self, sha256: str, now_s: float) -> _Episode:
        """Return what was published of a blob lately."""
        episode = self._episodes.get(sha256)
        quiet = episode is not None and now_s - episode.last_s > QUIET_S
        if quiet and sha256 not in self._blobs:
            del self._episodes[sha256]
            episode = None
        return _Episode() if episode is None else episode

    def _settling(self, episode: _Episode, *, again: bool, now_s: float) -> Settling:
        """Return how a round that begins now waits for other devices."""
        gather_s = pause_s = self._gather_s
        longest_s = LONGEST_WAIT * gather_s
        if again:
            episode.repetitions = min(episode.repetitions + 1, MAX_DOUBLINGS)
            pause_s *= 2.0**episode.repetitions
        elif episode.published_s:
            longest_s = gather_s
        return Settling(
            now_s, pause_s=pause_s, crowd_pause_s=gather_s * 2.0**MAX_DOUBLINGS, longest_s=longest_s
        )

    def _note(self, sha256: str, index: int, now_s: float) -> None:
        episode = self._episodes.setdefault(sha256, _Episode())
        episode.last_s = episode.published_s[index] = now_s
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
    """The queued chunks of one blob: those that go, and rounds that wait, by whether they are repetitions.

    Numbers are in the order in which they were asked for.
    """

    def __init__(self) -> None:
        self.going: dict[int, None] = {}
        self.rounds: dict[bool, _Round] = {}

    def __len__(self) -> int:
        return len(self.going) + sum(len(waiting.indices) for waiting in self.rounds.values())

    def round_with(self, index: int) -> _Round | None:
        """Return the round in which a chunk waits."""
        return next((waiting for waiting in self.rounds.values() if index in waiting.indices), None)

    def due_s(self) -> float:
        """Return when the next chunk is due; long ago if one goes already."""
        return -inf if self.going else min(waiting.settling.due_s for waiting in self.rounds.values())

    def start_due(self, now_s: float) -> None:
        """Let the rounds go that have waited enough."""
        for again in [again for again, waiting in self.rounds.items() if waiting.settling.due_s <= now_s]:
            self.going |= self.rounds.pop(again).indices

    def delay_repetitions(self, now_s: float) -> None:
        """Let repetitions wait on: whoever misses something of the blob gets more of it right now."""
        if (waiting := self.rounds.get(True)) is not None:
            waiting.settling.goes_on(now_s)


class _Round:
    """Chunks that wait together for other devices."""

    def __init__(self, settling: Settling) -> None:
        self.settling = settling
        self.indices: dict[int, None] = {}


class _Episode:
    """What was published of one blob, and when, until a quiet time."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.published_s: dict[int, float] = {}
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
