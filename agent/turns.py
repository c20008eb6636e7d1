"""Turns at a model: one thread computes at a time, the others wait in order, some are answered meanwhile.

::

    try_take ─────────────────────────────► compute ─► give_back      nobody else is there
    enter ─► wait ──────┬─ has the turn ──► compute ─► give_back      he may take others along
                        └─ was answered

Whoever gives his turn back hands it to the first in the queue for whom a thread waits. Others in the queue
have entered before their thread had time (`agent.execution`); it takes the turn itself when it comes, if it
is free. Nobody can be overlooked: a thread that waits says so before it looks whether the turn is free, and
who gives the turn back looks for such threads after he made it free.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from agent.runtimes.protocol import Tensors

Ran = tuple[dict[str, NDArray[Any]], int, int, int, bool]
"""A run as one request sees it: outputs by name; when the runtime began and how long it took, in nanoseconds
of `time.perf_counter_ns`; how many samples it had if several requests were joined in it, else 0; and whether
another request's thread made it."""


class Asked:
    """Somebody who wants the turn.

    Args:
        inputs: Of a request that others may compute too; None for any other work.
    """

    __slots__ = ("_wake", "inputs", "is_gone", "is_parked", "is_queued", "is_single", "leads", "ran")

    def __init__(self, inputs: Tensors | None = None) -> None:
        self.inputs = inputs
        self.ran: Ran | None = None
        """What it was answered."""
        self.is_single = inputs is None
        """Whether it is computed with none other."""
        self.is_queued = self.is_parked = self.is_gone = self.leads = False
        self._wake = threading.Lock()
        self._wake.acquire()

    @property
    def samples(self) -> int:
        """How many the request has."""
        return 0 if self.inputs is None else len(next(iter(self.inputs.values())))

    @property
    def size_bytes(self) -> int:
        """How long its inputs are."""
        return 0 if self.inputs is None else sum(array.nbytes for array in self.inputs.values())

    @property
    def form(self) -> object:
        """What requests have in common that can be computed in one run."""
        if self.inputs is None:
            return None
        return [(name, array.dtype, array.shape[1:]) for name, array in sorted(self.inputs.items())]

    def wake(self) -> None:
        """Let its thread go on; for whoever takes it out of the queue, once."""
        self._wake.release()

    def sleep(self, timeout_s: float) -> bool:
        """Wait for `wake`; tell whether it came in time."""
        return self._wake.acquire(timeout=timeout_s)


class Turns:
    """The turns at one model. Any thread may use it."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self.try_take: Callable[[], bool] = partial(self._turn.acquire, False)
        """Takes the turn if it is free, and tells whether it was; called for every request."""
        self._mutex = threading.Lock()  # of the queue, and what `Asked` says of its place in it
        self._queue: deque[Asked] = deque()

    @property
    def is_taken(self) -> bool:
        """Whether somebody has the turn."""
        return self._turn.locked()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._queue)

    def enter(self, asked: Asked) -> None:
        """Wait in the queue from now on."""
        with self._mutex:
            asked.is_queued = True
            self._queue.append(asked)

    def wait(self, asked: Asked, timeout_s: float) -> bool:
        """Wait in the asking thread, after `enter`; tell whether the turn or an answer came in time.

        Afterwards ``asked`` is answered, or its thread has the turn.
        """
        with self._mutex:
            if asked.is_gone:
                return False
            asked.is_parked = True
        if self.try_take():
            with self._mutex:
                was_queued = self._leave(asked)
            if not was_queued:  # it was answered, and who did so has given the turn back; or it is gone
                self.give_back()
            return was_queued or asked.ran is not None
        if not asked.sleep(timeout_s):
            self.drop(asked)
            if asked.leads:  # the turn came too late
                self.give_back()
            return False
        return asked.leads or asked.ran is not None

    def drop(self, asked: Asked) -> None:
        """Wait no more; what others compute for it already is computed for nobody."""
        with self._mutex:
            asked.is_gone = True
            if self._leave(asked):
                asked.inputs = None
                asked.wake()

    def give_back(self) -> None:
        """Hand the turn to the first who waits for it."""
        while not self._queue or not self._hand_on():
            self._turn.release()
            if not self._queue or not self._has_waiting() or not self.try_take():
                return

    def company(self, asked: Asked, samples: int, size_bytes: int) -> list[Asked]:
        """Take requests out of the queue that can be computed together with one that has the turn.

        Args:
            asked: The one that has the turn.
            samples: How many all may have together, and
            size_bytes: how long their inputs may be.
        """
        taken: list[Asked] = []
        if asked.is_single or not self._queue:
            return taken
        form, samples, size_bytes = asked.form, samples - asked.samples, size_bytes - asked.size_bytes
        with self._mutex:
            for each in tuple(self._queue):
                if samples < 1:
                    break
                if each.is_single or each.samples > samples or each.size_bytes > size_bytes:
                    continue
                if each.form == form:
                    samples, size_bytes = samples - each.samples, size_bytes - each.size_bytes
                    self._leave(each)
                    taken.append(each)
        return taken

    def put_back(self, taken: list[Asked]) -> None:
        """Let requests that `company` took out be computed by themselves, before all others."""
        with self._mutex:
            for each in reversed(taken):
                each.is_single = True
                if each.is_gone:
                    each.wake()
                else:
                    each.is_queued = True
                    self._queue.appendleft(each)

    def answer(self, asked: Asked, ran: Ran) -> None:
        """Tell a request that `company` took out what it was answered."""
        asked.ran = ran
        asked.wake()

    def _hand_on(self) -> bool:
        with self._mutex:
            heir = next((each for each in self._queue if each.is_parked), None)
            if heir is None:
                return False
            self._leave(heir)
            heir.leads = True
        heir.wake()
        return True

    def _has_waiting(self) -> bool:
        with self._mutex:
            return any(each.is_parked for each in self._queue)

    def _leave(self, asked: Asked) -> bool:
        was_queued = asked.is_queued
        if was_queued:
            self._queue.remove(asked)
            asked.is_queued = False
        return was_queued
