"""Which loaded model answers for a model's name now, and what is counted about its answers.

Separate from serving, which only translates a protocol. `Host.put` swaps in one assignment: a request that
came before is answered by the version it met, one that comes after by the new one, and none is dropped.

Requests come from the event loop (`Hosted.infer`) and from threads of their own (`Hosted.infer_now`). In
which thread a model computes, `agent.execution` says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.execution import Execution
from agent.finite import is_finite
from agent.life.footprint import measure_footprint
from agent.life.slots import Slot
from agent.life.terms import Release
from agent.runtimes.joining import joinable_samples
from agent.runtimes.protocol import LoadedModel, Tensors
from agent.runtimes.registry import runtime
from agent.runtimes.self_test import TEXT, run_self_test
from agent.telemetry.window import Counter
from agent.turns import Ran
from fleet.protocol.errors import (
    InferenceFailed,
    InferenceNotFinite,
    InferenceTimedOut,
    NotFound,
    SelfTestTimedOut,
)
from fleet.protocol.manifest import Manifest
from fleet.protocol.messages import Capabilities
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.requirement import suitable_runtime

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a model answered.

    Attributes:
        outputs: By name, as the signature has them.
        version: The version that answered.
        classes: Number of the most probable class for each sample; None if the model is no classifier.
        scores: Number of each class for each sample, shape (N, C); None if the model is no classifier.
        counter: Where a label for these samples is counted.
        queue_ns: How long the request waited for the version's thread.
        compute_ns: How long the runtime took.
        joined: How many samples the run had if other requests were answered by it too, else 0.
        is_guest: Whether another request's thread made the run.
        embedding: What drift is watched on besides, shape (N, K), and nobody is answered with; None if the
            model has none.
    """

    outputs: dict[str, NDArray[Any]]
    version: int
    classes: NDArray[np.int64] | None
    scores: NDArray[Any] | None
    counter: Counter
    queue_ns: int
    compute_ns: int
    joined: int
    is_guest: bool
    embedding: NDArray[Any] | None = None


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
        self._task = slot.manifest.signature.task
        signature = slot.manifest.signature
        self._input, self.output_name = signature.inputs[0].name, signature.outputs[0].name
        self._embedding = None if signature.embedding is msgspec.UNSET else signature.embedding
        self._numbers = next((tensor.name for tensor in signature.inputs if tensor.dtype != TEXT), None)

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
            ran = await self._execution.hand_over(inputs)
        except InferenceFailed as error:
            raise self._failed(error) from error
        answer = self._checked(inputs, ran, asked_ns)
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
        except InferenceFailed as error:
            raise self._failed(error) from error
        if ran is None:
            return None
        answer = self._checked(inputs, ran, asked_ns)
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
        except InferenceFailed as error:
            raise self._failed(error) from error
        if self._execution.is_late(ran):
            late = self._execution.too_late()
            raise late if self._execution.was_given_up(ran) else self._failed(late)
        return self._checked(inputs, ran, asked_ns)

    def count(self, inputs: Tensors, answer: Answer) -> None:
        """Count an answer of `answer_now`, and tell who watches.

        Args:
            inputs: As they were given; they are not kept.
            answer: What they were answered with.
        """
        values = answer.outputs[self.output_name]
        samples = len(values)
        self.answered += samples
        profiled = self.profiled(inputs, samples)
        self.counter.count(profiled, values, answer.compute_ns / 1000, answer.embedding)
        on_answer, on_sample = self.on_answer, self.on_sample  # another thread may take either away
        if on_answer is not None:
            on_answer(inputs, answer.outputs, answer.compute_ns)
        if on_sample is not None:
            on_sample(self, inputs, answer)

    def tell_late_run(self) -> None:
        """Count a run as failed that a thread began and that has not ended in time; once for each."""
        if self._execution.give_up_late_run():
            self._failed(self._execution.too_late())

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

    def _checked(self, inputs: Tensors, ran: Ran, asked_ns: int) -> Answer:
        """Return what the model gave, if it is an answer."""
        outputs, started_ns, compute_ns, joined, is_guest = ran
        embedding = self._set_aside(outputs, len(inputs[self._input]))
        for value in outputs.values():
            if not is_finite(value):
                why = "The model answered with values that are not finite."
                raise self._failed(InferenceNotFinite(why))
        values = outputs[self.output_name]
        shape, samples = values.shape, len(inputs[self._input])
        if self._task == "reconstruction":
            fits = values.size == self.profiled(inputs, samples).size
        else:
            fits = values.size > 0
        if shape[:1] != (samples,) or not fits:
            why = f"The model answered {samples} sample(s) with the shape {shape}."
            raise self._failed(InferenceFailed(why))
        classes = scores = None
        if self._task == "classification":
            scores = values if len(shape) == 2 else values.reshape(samples, -1)
            classes = scores.argmax(axis=1)
        return Answer(
            outputs,
            self.release.version,
            classes,
            scores,
            self.counter,
            started_ns - asked_ns,
            compute_ns,
            joined,
            is_guest,
            embedding,
        )

    def _set_aside(self, outputs: dict[str, NDArray[Any]], samples: int) -> NDArray[Any] | None:
        """Take the embedding out of what was computed: it is counted, and nobody is answered with it.

        An answer is no worse for its embedding: one that is not as the manifest says counts as missing.
        """
        if self._embedding is None:
            return None
        found, shape = outputs.pop(self._embedding.name), (samples, *self._embedding.shape[1:])
        return found if found.shape == shape else np.full(shape, np.nan, np.float32)

    def profiled(self, inputs: Tensors, samples: int) -> NDArray[Any]:
        """Return the first input of numbers; for a model of text alone, no numbers, shape (N, 0)."""
        return np.empty((samples, 0), dtype=np.float32) if self._numbers is None else inputs[self._numbers]

    def _failed(self, error: InferenceFailed) -> InferenceFailed:
        """Count a failed inference, in whichever thread it failed, and tell the trial of it."""
        self.counter.count_error()
        if self.on_failure is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell_failure, error)
        return error

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
        self._set_aside(outputs, 0)
        return outputs

    def close(self) -> None:
        """Take no more requests; those that were taken are still answered."""
        self._execution.close()


def open_plainly(slot: Slot, name: str) -> LoadedModel:
    """Load a model as its runtime does by itself, whatever memory it needs.

    Raises:
        ModelError: The runtime cannot run it.
    """
    return runtime(name).load(slot.model_path, slot.manifest.signature)


async def load(
    slot: Slot,
    device: Capabilities,
    timeout_s: float,
    open_model: Callable[[Slot, str], LoadedModel] = open_plainly,
    batch_limit: int = 1,
) -> Hosted:
    """Load an installed version into memory, with the runtime that suits it best.

    Args:
        slot: Its verified files.
        device: What the device can run.
        timeout_s: How long one inference may take.
        open_model: Loads it, given the name of the runtime; called in the version's thread.
        batch_limit: How many samples a joined run may have at most.

    Raises:
        ModelError: No runtime here can run it.
    """
    name = suitable_runtime(slot.variant.requirement, device)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model-{slot.manifest.model}")
    loop = asyncio.get_running_loop()

    opened: list[tuple[LoadedModel, int]] = []  # a result would stay in asyncio's futures, a cycle, for long

    def open_and_measure() -> None:
        model = open_model(slot, name)
        opened.append((model, joinable_samples(model, slot.manifest, slot.variant, slot.folder, batch_limit)))

    try:
        await loop.run_in_executor(thread, open_and_measure)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    model, joined_samples = opened.pop()
    return Hosted(slot, model, thread, timeout_s, loop=loop, joined_samples=joined_samples)


class Host:
    """The models that answer now, by name. Lives in the event loop; any thread may `get`."""

    def __init__(self) -> None:
        self._hosted: dict[str, Hosted] = {}
        self.on_put: Callable[[str, Hosted], None] | None = None
        """Told of each version that is to answer from now on, and of which model."""
        self._former: set[Counter] = set()  # of versions that answer no more, not told of since
        self._labelled: set[Counter] = set()  # of any version, in which labels were counted since
        self._is_noised = False

    def count_labels(
        self, counter: Counter, are_correct: Sequence[bool], confidences: Sequence[float]
    ) -> None:
        """Count labels for the version that gave the answers, also if another answers by now.

        Args:
            counter: Of that version.
            are_correct: Whether each labelled answer was right.
            confidences: How sure each was.
        """
        counter.count_labels(are_correct, confidences)
        self._labelled.add(counter)

    def count_unknown_label(self, counter: Counter) -> None:
        """Count that labels came for a prediction that nobody knows, for a version that may have given it."""
        counter.count_unknown_label()
        self._labelled.add(counter)

    @property
    def is_noised(self) -> bool:
        """Whether what is counted gets noise before it leaves the device."""
        return self._is_noised

    @is_noised.setter
    def is_noised(self, is_noised: bool) -> None:
        self._is_noised = is_noised
        for counter in {hosted.counter for hosted in self._hosted.values()} | self._former | self._labelled:
            counter.is_noised = is_noised

    def forget_counts(self) -> None:
        """Begin the windows of all versions anew."""
        self._labelled |= self._former
        self.close_windows(time.time())

    def close_windows(self, now_s: float) -> list[TelemetryWindow]:
        """End the current windows of all versions and return those in which anything was counted.

        With noise on them all are returned, but for those in which nothing but late labels can have been
        counted: that there is one must not depend on what was counted.

        Args:
            now_s: Unix time.
        """
        counters = {hosted.counter for hosted in self._hosted.values()} | self._former
        late, self._labelled, self._former = self._labelled - counters, set(), set()
        if self._is_noised:
            for counter in late:
                counter.close(now_s)
        else:
            counters |= late
        windows = [counter.close(now_s) for counter in counters]
        return [window for window in windows if window is not None]

    def get(self, model: str) -> Hosted | None:
        """Return what answers for a model, or None."""
        return self._hosted.get(model)

    def answering(self, model: str) -> Hosted:
        """Return what answers for a model.

        Raises:
            NotFound: Nothing does.
        """
        hosted = self._hosted.get(model)
        if hosted is None:
            raise NotFound(f"No version of model {model!r:.80} answers on this device.")
        return hosted

    def all(self) -> dict[str, Hosted]:
        """Return everything that answers, by model."""
        return dict(sorted(self._hosted.items()))

    def put(self, model: str, hosted: Hosted | None) -> Hosted | None:
        """Let another version answer, or none; return the one that answered before."""
        before = self._hosted.get(model)
        if hosted is None:
            self._hosted.pop(model, None)
        else:
            if self.on_put is not None:
                self.on_put(model, hosted)
            hosted.counter.is_noised = self._is_noised
            self._hosted[model] = hosted
        if before is not None:
            self._former.add(before.counter)
        return before
