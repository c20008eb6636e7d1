"""When a loaded model computes, and in which thread.

One inference at a time: whoever holds the model's lock. Three kinds of callers take turns for it:

====================  ==================================================================================
caller                computes in
====================  ==================================================================================
a thread of its own   that thread, which waits for the lock (`Execution.run`)
the event loop        the version's own thread, to which the work is handed over (`Execution.hand_over`)
the event loop        the event loop, if the model is proven quick and its lock is free
                      (`Execution.run_if_quick`): handing over costs more than a small model computes
====================  ==================================================================================

A model is proven quick for requests of a size by `PROOF_RUNS` runs of at most `QUICK_NS` in its own thread,
one of which was at least of that size. A slow run takes away as many as prove it. So one alone, which on a
busy device means that the thread was held up, does not cost a proof of long standing, and two soon after one
another do. ``docs/adr`` tells why.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from agent.runtimes.protocol import LoadedModel, Tensors
from fleet.protocol.errors import InferenceTimedOut

QUICK_NS = 1_000_000
PROOF_RUNS = 32
_KEPT_RUNS = 2 * PROOF_RUNS

Ran = tuple[dict[str, NDArray[Any]], int, int]
"""Outputs by name, when the runtime began, and how long it took, in nanoseconds of `time.perf_counter_ns`."""


class Execution:
    """The runs of one loaded model.

    Args:
        model: The model.
        thread: The version's own thread.
        timeout_s: How long one inference may take.
    """

    def __init__(self, model: LoadedModel, thread: ThreadPoolExecutor, timeout_s: float) -> None:
        self._model = model
        self._thread = thread
        self._timeout_s = timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._lock = threading.Lock()
        self._watched_since_ns = 0  # when the run began that a thread of its own makes now
        self._given_up_ns = 0  # when the run began that was last given up
        self._quick_runs = 0
        self._quick_size = 0

    @property
    def is_busy(self) -> bool:
        """Whether somebody computes now."""
        return self._lock.locked()

    def run(self, inputs: Tensors) -> Ran:
        """Compute in the calling thread, in turn; however long it takes.

        Raises:
            InferenceFailed: The runtime failed, or the turn did not come in time.
        """
        self._take_turn()
        try:
            started_ns = self._watched_since_ns = time.perf_counter_ns()
            outputs = self._model.infer(inputs)
            compute_ns = time.perf_counter_ns() - started_ns
        finally:
            self._watched_since_ns = 0
            self._lock.release()
        return outputs, started_ns, compute_ns

    def is_late(self, ran: Ran) -> bool:
        """Whether a run took too long."""
        return ran[2] > self._timeout_ns

    def was_given_up(self, ran: Ran) -> bool:
        """Whether `give_up_late_run` told of a run before it ended."""
        return ran[1] == self._given_up_ns

    def give_up_late_run(self) -> bool:
        """Tell whether a thread's own run has taken too long by now; each such run is told once."""
        since_ns = self._watched_since_ns
        if not since_ns or since_ns == self._given_up_ns:
            return False
        if time.perf_counter_ns() - since_ns <= self._timeout_ns:
            return False
        self._given_up_ns = since_ns
        return True

    def run_if_quick(self, inputs: Tensors) -> Ran | None:
        """Compute in the event loop if that will not hold it up; None if it may.

        Raises:
            InferenceFailed: The runtime failed.
        """
        if self._quick_runs < PROOF_RUNS or _size(inputs) > self._quick_size:
            return None
        if not self._lock.acquire(blocking=False):
            return None
        try:
            ran = self._timed(inputs)
        finally:
            self._lock.release()
        self._judge(ran[2], _size(inputs))
        return ran

    async def hand_over(self, inputs: Tensors) -> Ran:
        """Compute in the version's own thread, in turn.

        Raises:
            InferenceFailed: The runtime failed, or did not answer in time.
        """
        ran: Ran = await self.call(lambda: self._timed(inputs))
        self._judge(ran[2], _size(inputs))
        return ran

    async def call(self, work: Callable[[], Any]) -> Any:
        """Do other work with the model in the version's own thread, in turn.

        Raises:
            InferenceTimedOut: It did not end in time.
        """

        def in_turn() -> Any:
            self._take_turn()
            try:
                return work()
            finally:
                self._lock.release()

        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._submit(in_turn)
        except TimeoutError as error:
            work = _nothing  # if a model hangs, what waits for it may wait for ever, but holds no inputs
            raise self.too_late() from error

    def _submit(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self._thread, work)
        except RuntimeError:  # closed after the request was taken, which is answered all the same
            return loop.run_in_executor(None, work)

    def too_late(self) -> InferenceTimedOut:
        """Return the error of an inference that took too long."""
        return InferenceTimedOut(f"The model did not answer in {self._timeout_s:g} s.")

    def close(self) -> None:
        """Take no more work from the event loop; what was taken is still done."""
        self._thread.shutdown(wait=False)

    def _take_turn(self) -> None:
        if not self._lock.acquire(blocking=False) and not self._lock.acquire(timeout=self._timeout_s):
            raise self.too_late()

    def _judge(self, compute_ns: int, size: int) -> None:
        """Learn from a run whether the model is quick; one of a size that was never quick says nothing."""
        if compute_ns <= QUICK_NS:
            self._quick_runs = min(self._quick_runs + 1, _KEPT_RUNS)
            self._quick_size = max(self._quick_size, size)
        elif size <= self._quick_size:
            self._quick_runs -= PROOF_RUNS
            if self._quick_runs < PROOF_RUNS:
                self._quick_runs = self._quick_size = 0

    def _timed(self, inputs: Tensors) -> Ran:
        started_ns = time.perf_counter_ns()
        outputs = self._model.infer(inputs)
        return outputs, started_ns, time.perf_counter_ns() - started_ns


def _nothing() -> None:
    pass


def _size(inputs: Tensors) -> int:
    return sum(array.size for array in inputs.values())
