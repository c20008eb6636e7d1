"""Predictions over HTTP: the request read, the model asked, the answer written, and what each of it took."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from numpy.typing import NDArray

from agent.hosting.answers import Answer
from agent.hosting.hosted import Hosted
from agent.serving.binary import LENGTH_HEADER
from agent.serving.body import unpack
from agent.serving.feedback import ID_DIGITS, Feedback
from agent.serving.http_messages import Request, Response
from agent.serving.inference import (
    PREDICTION_ID,
    InferResponse,
    keep_answer,
    read_request,
    write_known,
    write_response,
)
from agent.serving.shared_memory import CallersMemory
from agent.serving.statistics import Statistics
from agent.serving.understood import KnownRequests, Understood

Later = Coroutine[Any, Any, Response]
"""A response that has to be waited for."""


class _Question(NamedTuple):
    """A request for predictions that was understood.

    Attributes:
        hosted: The version that answers.
        understood: What it asks for.
        inputs: What the model is given.
        started_ns: When it came, and
        read_ns: when it was understood, by `time.perf_counter_ns`.
    """

    hosted: Hosted
    understood: Understood
    inputs: dict[str, NDArray[Any]]
    started_ns: int
    read_ns: int


class Predictions:
    """Answers requests for predictions.

    Args:
        feedback: Remembers predictions that can be labelled.
        limit_bytes: Largest request, once it is unpacked.
    """

    def __init__(self, feedback: Feedback, limit_bytes: int) -> None:
        self._feedback = feedback
        self._limit_bytes = limit_bytes
        self._statistics: WeakKeyDictionary[Hosted, Statistics] = WeakKeyDictionary()
        self._requests: WeakKeyDictionary[Hosted, KnownRequests] = WeakKeyDictionary()

    def statistics(self, hosted: Hosted) -> Statistics:
        """Return what is counted of a version."""
        found = self._statistics.get(hosted)
        if found is None:
            found = self._statistics[hosted] = Statistics()
        return found

    def answer(
        self, hosted: Hosted, request: Request, shared: CallersMemory | None, started_ns: int
    ) -> Response | Later:
        """Answer a request for predictions at once, or return what will; count it, also if it fails.

        Args:
            hosted: The version that answers.
            request: The request.
            shared: What the caller shares; None if nothing can be.
            started_ns: When the request came, by `time.perf_counter_ns`.

        Raises:
            InvalidInput: The request cannot be understood.
            InferenceFailed: The model failed.
        """
        try:
            body = unpack(request.body, request.headers.get("content-encoding", ""), self._limit_bytes)
            length, signature = request.headers.get(LENGTH_HEADER), hosted.manifest.signature
            understood, inputs = read_request(body, length, signature, shared, self._known(hosted))
            question = _Question(hosted, understood, inputs, started_ns, time.perf_counter_ns())
            answer = hosted.infer_at_once(inputs)
            return self._infer_later(question) if answer is None else self._predict(question, answer)
        except BaseException:
            self._count_failure(hosted, started_ns)
            raise

    async def _infer_later(self, question: _Question) -> Response:
        try:
            return self._predict(question, await question.hosted.infer(question.inputs))
        except BaseException:
            self._count_failure(question.hosted, question.started_ns)
            raise

    def _predict(self, question: _Question, answer: Answer) -> Response:
        """Return the HTTP response with predictions, and count it."""
        hosted, answered_ns = question.hosted, time.perf_counter_ns()
        signature, outputs = hosted.manifest.signature, answer.outputs
        prediction_id = self._feedback.remember(hosted.manifest.model, answer, signature.classes)
        written = write_known(prediction_id, outputs, question.understood)
        if written is None:
            response = InferResponse(
                hosted.manifest.model, str(answer.version), id=question.understood.request_id
            )
            if prediction_id is not None:
                response.parameters[PREDICTION_ID] = f"{prediction_id:0{ID_DIGITS}x}"
            written = write_response(response, outputs, question.understood)
            if prediction_id is not None:
                keep_answer(response, written, outputs, question.understood)
        ended_ns = time.perf_counter_ns()
        counted, samples = self.statistics(hosted), len(next(iter(question.inputs.values())))
        read_ns, written_ns = question.read_ns - question.started_ns, ended_ns - answered_ns
        counted.succeeded(
            time.time(),
            samples=samples,
            success=ended_ns - question.started_ns,
            queue=answer.queue_ns,
            compute_input=read_ns,
            compute_infer=answer.compute_ns,
            compute_output=written_ns,
        )
        if not answer.is_guest:
            counted.ran(answer.joined or samples, read_ns, answer.compute_ns, written_ns)
        return written

    def _count_failure(self, hosted: Hosted, started_ns: int) -> None:
        self.statistics(hosted).failed(time.time(), time.perf_counter_ns() - started_ns)

    def _known(self, hosted: Hosted) -> KnownRequests:
        found = self._requests.get(hosted)
        if found is None:
            found = self._requests[hosted] = KnownRequests()
        return found
