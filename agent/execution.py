"""When a loaded model computes, and in which thread.

One inference at a time: whoever has the turn (`agent.turns`). Three kinds of callers take turns:

====================  ==================================================================================
caller                computes in
====================  ==================================================================================
a thread of its own   that thread, which waits for its turn (`Execution.run`)
the event loop        the version's own thread, to which the work is handed over (`Execution.hand_over`)
the event loop        the event loop, if the model is proven quick and nobody has the turn
                      (`Execution.run_if_quick`): handing over costs more than a small model computes
====================  ==================================================================================

Who has waited for his turn takes along what waits behind him, where that pays (`agent.runtimes.joining`):
requests that came while another was computed become one run. Nobody waits for company: a lone caller finds
the turn free and computes at once. If a joined run fails, each of its requests is computed by itself.

A model is proven quick for requests of a size by `PROOF_RUNS` runs of at most `QUICK_NS` in its own thread,
one of which was at least of that size. A slow run takes away as many as prove it. So one alone, which on a
busy device means that the thread was held up, does not cost a proof of long standing, and two soon after one
another do. ``docs/adr`` tells why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from agent.runtimes.protocol import LoadedModel, Tensors
from agent.turns import Asked, Ran, Turns
from fleet.protocol.errors import InferenceFailed, InferenceTimedOut

QUICK_NS = 1_000_000
PROOF_RUNS = 32
_KEPT_RUNS = 2 * PROOF_RUNS

JOINED_BYTES = 1024**2
"""How long the inputs of a joined run may be: they are copied."""


class Execution:
    """The runs of one loaded model.

    Args:
        model: The model.
        thread: The version's own thread.
        timeout_s: How long one inference may take.
        joined_samples: How many samples a joined run may have; 1 for none.
    """

    def __init__(
        self,
        model: LoadedModel,
        thread: ThreadPoolExecutor,
        timeout_s: float,
        joined_samples: int = 1,
    ) -> None:
        self._model = model
        self._thread = thread
        self._timeout_s = timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._joined_samples = joined_samples
        self.may_join = True
        """Whether runs may be joined now."""
        self._turns = Turns()
        self._watched_since_ns = 0  # when the run began that a thread of its own makes now
        self._given_up_ns = 0  # when the run began that was last given up
        self._quick_runs = 0
        self._quick_size = 0

    @property
    def is_busy(self) -> bool:
        """Whether somebody computes now."""
        return self._turns.is_taken

    def run(self, inputs: Tensors) -> Ran:
        """Compute in the calling thread, in turn; however long it takes.

        Raises:
            InferenceFailed: The runtime failed, or the turn did not come in time.
        """
        if not self._turns.try_take():
            asked = Asked(inputs)
            self._turns.enter(asked)
            return self._answered(asked, self._watched)
        try:
            return self._watched(inputs)
        finally:
            self._turns.give_back()

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
        if not self._turns.try_take():
            return None
        try:
            ran = self._timed(inputs)
        finally:
            self._turns.give_back()
        self._judge(ran[2], _size(inputs))
        return ran

    async def hand_over(self, inputs: Tensors) -> Ran:
        """Compute in the version's own thread, in turn.

        Raises:
            InferenceFailed: The runtime failed, or did not answer in time.
        """
        asked = Asked(inputs)
        ran: Ran = await self._in_order(asked, lambda: self._answered(asked, self._timed))
        if not ran[3]:
            self._judge(ran[2], _size(inputs))
        return ran

    async def call(self, work: Callable[[], Any]) -> Any:
        """Do other work with the model in the version's own thread, in turn.

        Raises:
            InferenceTimedOut: It did not end in time.
        """
        asked = Asked()

        def in_turn() -> Any:
            if not self._turns.wait(asked, self._timeout_s):
                raise self.too_late()
            try:
                return work()
            finally:
                self._turns.give_back()

        return await self._in_order(asked, in_turn)

    async def _in_order(self, asked: Asked, work: Callable[[], Any]) -> Any:
        """Queue up now, and do in the version's own thread what waits for the turn."""
        self._turns.enter(asked)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._submit(work)
        except TimeoutError as error:
            raise self.too_late() from error
        finally:
            self._turns.drop(asked)  # if a model hangs, what waits for it may wait for ever: without inputs

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

    def _answered(self, asked: Asked, compute: Callable[[Tensors], Ran]) -> Ran:
        """Wait for the turn and compute, or for an answer of one who computes for others too."""
        if not self._turns.wait(asked, self._timeout_s):
            raise self.too_late()
        if asked.ran is None:
            try:
                return self._compute(asked, compute)
            finally:
                self._turns.give_back()
        if asked.ran[2] > self._timeout_ns:
            raise self.too_late()
        return asked.ran

    def _compute(self, asked: Asked, compute: Callable[[Tensors], Ran]) -> Ran:
        """Compute a request that has the turn, and what can be joined with it."""
        assert asked.inputs is not None
        guests = []
        if self._joined_samples > 1 and self.may_join:
            guests = self._turns.company(asked, self._joined_samples, JOINED_BYTES)
        if guests:
            try:
                return self._compute_joined([asked, *guests], compute)
            except BaseException as error:
                self._turns.put_back(guests)
                if not isinstance(error, InferenceFailed):
                    raise
        return compute(asked.inputs)

    def _compute_joined(self, asked: list[Asked], compute: Callable[[Tensors], Ran]) -> Ran:
        """Compute requests in one run; answer all but the first, and return its own answer."""
        given = [each.inputs for each in asked if each.inputs is not None]
        joined = {name: np.concatenate([inputs[name] for inputs in given]) for name in given[0]}
        outputs, started_ns, compute_ns, *_ = compute(joined)
        samples = sum(each.samples for each in asked)
        if any(values.shape[:1] != (samples,) for values in outputs.values()):
            raise InferenceFailed(f"The model did not answer {samples} samples with as many values.")
        answers: list[Ran] = []
        start = 0
        for each in asked:
            end = start + each.samples
            own = {name: values[start:end] for name, values in outputs.items()}
            answers.append((own, started_ns, compute_ns, samples, bool(answers)))
            start = end
        for guest, answer in zip(asked[1:], answers[1:], strict=True):
            self._turns.answer(guest, answer)
        return answers[0]

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
        return outputs, started_ns, time.perf_counter_ns() - started_ns, 0, False

    def _watched(self, inputs: Tensors) -> Ran:
        """Do the same so that `give_up_late_run` sees it."""
        started_ns = self._watched_since_ns = time.perf_counter_ns()
        try:
            outputs = self._model.infer(inputs)
            return outputs, started_ns, time.perf_counter_ns() - started_ns, 0, False
        finally:
            self._watched_since_ns = 0


def _size(inputs: Tensors) -> int:
    return sum(array.size for array in inputs.values())
