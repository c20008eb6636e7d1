"""One version of a model in memory: requests in, answers out, each counted.

Requests come from the event loop (`Hosted.infer`) and from threads of their own (`Hosted.infer_now`). In
which thread a model computes, `agent.execution` says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from agent.execution import Execution
from agent.hosting.answers import Answer, AnswerReader
from agent.life.footprint import measure_footprint
from agent.life.slots import Slot
from agent.life.terms import Release
from agent.runtimes.protocol import LoadedModel, Tensors
from agent.runtimes.self_test import run_self_test
from agent.telemetry.window import Counter
from fleet.protocol.errors import InferenceFailed, InferenceTimedOut, SelfTestTimedOut
from fleet.protocol.manifest import Manifest


class Hosted:
    """One version in memory.

    Args:
        slot: The verified files.
        model: The variant, loaded.
        thread: The version's own thread.
        timeout_s: How long one inference may take.
        loop: Where somebody may judge its failures; None where nobody does.
        joined_samples: How many samples may be computed in one run where several requests wait; 1: no run is
            joined.
    """

    def __init__(
        self,
        slot: Slot,
        model: LoadedModel,
        thread: ThreadPoolExecutor,
        timeout_s: float,
        *,
        loop: asyncio.AbstractEventLoop | None,
        joined_samples: int,
    ) -> None:
        self.release: Release = slot.release
        self.manifest: Manifest = slot.manifest
        self.platform = model.platform
        self.accelerator = model.accelerator
        self.counter = Counter(slot.manifest, slot.variant.name, slot.release.manifest_sha256)
        self.reader = AnswerReader(slot.manifest, self.counter)
        self._on_failure: Callable[[InferenceFailed], None] | None = None
        self.on_answer: Callable[[Tensors, dict[str, NDArray[Any]], int], None] | None = None
        """Told of each good answer in the thread that gave it: inputs and outputs (copy them to keep them),
        and how long the runtime took, in nanoseconds."""
        self.on_sample: Callable[[Hosted, Tensors, Answer], None] | None = None
        """Likewise, to choose samples that people may label, see `agent.capture`."""
        self.stated_memory_bytes = slot.variant.requirement.peak_memory_bytes
        self.footprint_before = measure_footprint()
        """The memory as it was before it was loaded, if whoever loads it sets it; else as it is now."""
        self.answered = 0
        """Predictions given since it was loaded."""
        self._slot = slot
        self._model = model
        self._execution = Execution(model, thread, timeout_s, joined_samples)
        self._loop = loop

    async def self_test(self) -> None:
        """Run the golden inputs.

        Raises:
            SelfTestFailed: The answers are not the golden ones, or do not come in time.
        """
        slot = self._slot
        try:
            await self._execution.call(
                lambda: run_self_test(self._model, slot.manifest, slot.variant, slot.folder)
            )
        except InferenceTimedOut as error:
            raise SelfTestTimedOut("The self-test did not end in time.") from error

    async def infer(self, inputs: Tensors) -> Answer:
        """Answer one request and count it.

        Args:
            inputs: Arrays whose names, types and shapes were checked against the signature.

        Raises:
            InferenceFailed: The runtime failed, took too long, or gave values that are not finite or not of
                the shape that its task asks for.
        """
        answer = self.infer_at_once(inputs)
        if answer is not None:
            return answer
        asked_ns = time.perf_counter_ns()
        try:
            answer = self.reader.read(inputs, await self._execution.hand_over(inputs), asked_ns)
        except InferenceFailed as error:
            self._count_failure(error)
            raise
        self.count(inputs, answer)
        return answer

    def infer_at_once(self, inputs: Tensors) -> Answer | None:
        """Do the same in the event loop without waiting; None if that could hold it up.

        Args:
            inputs: As for `infer`.

        Raises:
            InferenceFailed: As for `infer`.
        """
        if self._is_on_trial:
            return None
        asked_ns = time.perf_counter_ns()
        try:
            ran = self._execution.run_if_quick(inputs)
            if ran is None:
                return None
            answer = self.reader.read(inputs, ran, asked_ns)
        except InferenceFailed as error:
            self._count_failure(error)
            raise
        self.count(inputs, answer)
        return answer

    def infer_now(self, inputs: Tensors) -> Answer:
        """Do the same in the calling thread, which is not the event loop's, and wait for it.

        A run that hangs keeps the thread; `tell_late_run` counts it as failed.

        Args:
            inputs: As for `infer`; they are not kept.

        Raises:
            InferenceFailed: As for `infer`.
        """
        answer = self.answer_now(inputs)
        self.count(inputs, answer)
        return answer

    def answer_now(self, inputs: Tensors) -> Answer:
        """Do the same, but leave it to the caller to `count` the answer when it has passed it on.

        Raises:
            InferenceFailed: As for `infer`.
        """
        asked_ns = time.perf_counter_ns()
        try:
            ran = self._execution.run(inputs)
            if not self._execution.is_late(ran):
                return self.reader.read(inputs, ran, asked_ns)
        except InferenceFailed as error:
            self._count_failure(error)
            raise
        late = self._execution.too_late()
        if not self._execution.was_given_up(ran):  # else it is counted already
            self._count_failure(late)
        raise late

    def count(self, inputs: Tensors, answer: Answer) -> None:
        """Count an answer of `answer_now`, and tell who watches.

        Args:
            inputs: As they were given; they are not kept.
            answer: What they were answered with.
        """
        values = answer.outputs[self.reader.output_name]
        samples = len(values)
        self.answered += samples
        profiled = self.reader.profiled(inputs, samples)
        self.counter.count(profiled, values, answer.compute_ns / 1000, answer.embedding)
        on_answer, on_sample = self.on_answer, self.on_sample  # another thread may take either away
        if on_answer is not None:
            on_answer(inputs, answer.outputs, answer.compute_ns)
        if on_sample is not None:
            on_sample(self, inputs, answer)

    def tell_late_run(self) -> None:
        """Count a run as failed that a thread began and that has not ended in time; once for each."""
        if self._execution.give_up_late_run():
            self._count_failure(self._execution.too_late())

    @property
    def is_busy(self) -> bool:
        """Whether an inference is under way."""
        return self._execution.is_busy

    @property
    def on_failure(self) -> Callable[[InferenceFailed], None] | None:
        """Told of each failed inference; who is told judges a trial, and requests are judged one by one."""
        return self._on_failure

    @on_failure.setter
    def on_failure(self, told: Callable[[InferenceFailed], None] | None) -> None:
        self._on_failure = told
        self._execution.may_join = told is None

    @property
    def _is_on_trial(self) -> bool:
        """Whether somebody judges its failures: then nothing may depend on its ending."""
        return self._on_failure is not None

    def _count_failure(self, error: InferenceFailed) -> None:
        """Count a failed inference, in whichever thread it failed, and tell the trial of it."""
        self.counter.count_error()
        if self.on_failure is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell_failure, error)

    def _tell_failure(self, error: InferenceFailed) -> None:
        if self.on_failure is not None:
            self.on_failure(error)

    def compute(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Return what the model answers, in the calling thread and counted nowhere: for a shadow.

        Only for a version that does not answer: one thread at a time may use a model.

        Raises:
            InferenceFailed: The runtime failed.
        """
        outputs = self._model.infer(inputs)
        self.reader.set_aside(outputs, 0)
        return outputs

    def close(self) -> None:
        """Take no more requests; those that were taken are still answered."""
        self._execution.close()
