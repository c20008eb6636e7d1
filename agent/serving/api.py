"""The local inference API: the Open Inference Protocol (version 2), and feedback.

==========  ====================================  =========================================================
method      path                                  answer
==========  ====================================  =========================================================
GET         /v2                                   the server's name, version and extensions
GET         /v2/health/live                       200 while the process answers
GET         /v2/health/ready                      200 if every model on the device answers, else 400
GET         {model}                               the answering version's signature
GET         {model}/ready                         200 if it answers, 400 if it does not yet, 404 if unknown
GET         {model}/config                        the signature in the form of Triton's configuration
GET         {model}/stats                         counts and durations since the version was loaded
GET         /v2/models/stats                      those of every model
POST        {model}/infer                         predictions
POST        /v2/models/{name}/feedback            counts labels for an earlier prediction (ours)
POST        /v2/repository/index                  the models on the device and what they are doing
POST        /v2/repository/models/{name}/load     403: the hub decides what runs; so for ``unload``
any         /v2/systemsharedmemory/…              regions of shared memory: `agent.serving.shared_memory`
==========  ====================================  =========================================================

``{model}`` is ``/v2/models/{name}`` or, for that version or none, ``/v2/models/{name}/versions/{version}``.
``docs/reference/agent-api.md`` shows requests and answers. An error is ``{"error": sentence, "code": code}``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.log import unexpected_failure
from agent.serving import describe
from agent.serving.body import decode, unpack
from agent.serving.feedback import Feedback, FeedbackRequest
from agent.serving.http_messages import Request, Response
from agent.serving.predictions import Later, Predictions
from agent.serving.shared_memory import CallersMemory, SharedMemory
from fleet.protocol.errors import (
    AccessDenied,
    Conflict,
    InferenceFailed,
    InvalidInput,
    MessageTooLarge,
    MusterError,
    NotFound,
    NotPermitted,
    Unavailable,
)
from fleet.protocol.messages import ModelState

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[MusterError], int], ...] = (
    (MessageTooLarge, 413),
    (InvalidInput, 400),
    (AccessDenied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (InferenceFailed, 500),
    (Unavailable, 503),
)


MAX_PATHS = 64
"""How many paths of inference requests are kept as they were read."""


class IndexRequest(msgspec.Struct):
    """What of the repository is asked for."""

    ready: bool = False


class InferenceApi:
    """Answers the requests of the local API.

    Args:
        host: The models that answer.
        is_ready: Tells whether every model on the device answers.
        states: Tells what the device holds of each model.
        limit_bytes: Largest request, once it is unpacked.
        shared_memory: What clients share; None if that is not offered.
    """

    def __init__(
        self,
        host: Host,
        is_ready: Callable[[], bool],
        states: Callable[[], tuple[ModelState, ...]],
        limit_bytes: int,
        shared_memory: SharedMemory | None = None,
    ) -> None:
        self._host = host
        self._is_ready = is_ready
        self._states = states
        self._limit_bytes = limit_bytes
        self._shared_memory = shared_memory
        self.feedback = Feedback(host)
        """The predictions that can be labelled; the fast path has the same."""
        self._predictions = Predictions(self.feedback, limit_bytes)
        self._asked_by: dict[str, tuple[str, str | None]] = {}

    async def respond(self, request: Request) -> Response:
        """Answer one request; every failure is an answer too."""
        answer = self.answer(request)
        return answer if isinstance(answer, Response) else await answer

    def answer(self, request: Request) -> Response | Later:
        """Answer one request at once, or return what will; every failure is an answer too."""
        try:
            answer = self._route(request)
        except MusterError as error:
            return self.refuse(error)
        except Exception:
            return self._fail()
        return answer if isinstance(answer, Response) else self._wait(answer)

    async def _wait(self, answer: Later) -> Response:
        try:
            return await answer
        except MusterError as error:
            return self.refuse(error)
        except Exception:
            return self._fail()

    def _fail(self) -> Response:
        """Log the exception that is being handled, and return the answer to what met it."""
        log.exception("A request failed unexpectedly.")
        return self.refuse(unexpected_failure())

    def refuse(self, error: MusterError) -> Response:
        """Return the answer that tells of an error."""
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return _json({"error": str(error), "code": error.code}, status)

    def _route(self, request: Request) -> Response | Later:
        asked_by = self._asked_by.get(request.target)
        if asked_by is not None and request.method == "POST":
            return self._infer(request, *asked_by)
        path = request.target.partition("?")[0]
        match (request.method, [unquote(part) for part in path.rstrip("/").split("/")[1:]]):
            case ("GET", ["v2"]):
                return _json(describe.server(shared_memory=self._shared_memory is not None))
            case ("GET", ["v2", "health", "live"]):
                return _json({"live": True})
            case ("GET", ["v2", "health", "ready"]):
                ready = self._is_ready()
                return _json({"ready": ready}, 200 if ready else 400)
            case ("GET", ["v2", "models", "stats"]):
                return self._tell_statistics(self._host.all())
            case ("POST", ["v2", "models", model, "feedback"]):
                asked = decode(self._body(request), FeedbackRequest)
                return _json(self.feedback.label(model, asked.number, asked.labels))
            case (_, ["v2", "models", model, "versions", version, *rest]):
                return self._route_model(request, model, version, rest)
            case (_, ["v2", "models", model, *rest]):
                return self._route_model(request, model, None, rest)
            case ("POST", ["v2", "repository", "index"]):
                return self._index(self._body(request))
            case ("POST", ["v2", "repository", "models", model, "load" | "unload"]):
                raise NotPermitted(
                    f"The hub decides whether model {model!r:.80} runs on this device.",
                    remedy="Assign or withdraw it there.",
                )
            case (_, ["v2", "systemsharedmemory", *rest]):
                return self._answer_of_memory(request, rest)
        raise _no_such(request)

    def _answer_of_memory(self, request: Request, path: list[str]) -> Response:
        shared = self._shared_by(request)
        if shared is None:
            raise NotFound("Shared memory is not offered here.", remedy="shared_memory is the setting.")
        answer = shared.memory.answer(request.method, path, self._body(request), shared.caller)
        if answer is None:
            raise _no_such(request)
        return _json(answer)

    def _shared_by(self, request: Request) -> CallersMemory | None:
        """Return what a caller shares; None if nobody can."""
        if self._shared_memory is None or request.caller is None:
            return None
        return CallersMemory(self._shared_memory, request.caller)

    def _route_model(
        self, request: Request, model: str, version: str | None, rest: list[str]
    ) -> Response | Later:
        match (request.method, rest):
            case ("GET", []):
                return _json(describe.metadata(self.answering(model, version)))
            case ("GET", ["ready"]):
                return self._tell_readiness(model, version)
            case ("GET", ["config"]):
                return _json(describe.configuration(self.answering(model, version)))
            case ("GET", ["stats"]):
                return self._tell_statistics({model: self.answering(model, version)})
            case ("POST", ["infer"]):
                answer = self._infer(request, model, version)
                if len(self._asked_by) >= MAX_PATHS:
                    self._asked_by.clear()
                self._asked_by[request.target] = model, version
                return answer
        raise _no_such(request)

    def answering(self, model: str, version: str | None) -> Hosted:
        """Return what answers for a model.

        Raises:
            NotFound: The device does not have the model, or another version of it answers.
            Unavailable: The device has the model, and no version answers now.
        """
        hosted = self._host.get(model)
        if hosted is None:
            for state in self._states():
                if state.model == model:
                    raise Unavailable(f"No version of model {model} answers yet: it is {state.phase}.")
            return self._host.answering(model)
        if version is not None and version != str(hosted.release.version):
            raise NotFound(
                f"Version {version!r:.40} of model {model} does not answer on this device; "
                f"version {hosted.release.version} does."
            )
        return hosted

    def _tell_readiness(self, model: str, version: str | None) -> Response:
        try:
            self.answering(model, version)
        except Unavailable:
            return _json({"name": model, "ready": False}, 400)  # the protocol wants a 4xx here
        return _json({"name": model, "ready": True})

    def _tell_statistics(self, models: dict[str, Hosted]) -> Response:
        found = [
            self._predictions.statistics(hosted).document(model, hosted.release.version)
            for model, hosted in models.items()
        ]
        return _json({"model_stats": found})

    def _index(self, body: bytes) -> Response:
        asked = decode(body, IndexRequest) if body else IndexRequest()
        answering = {model: hosted.release.version for model, hosted in self._host.all().items()}
        return _json(describe.index(self._states(), answering, only_ready=asked.ready))

    def _infer(self, request: Request, model: str, version: str | None) -> Response | Later:
        started_ns = time.perf_counter_ns()
        hosted = self.answering(model, version)
        return self._predictions.answer(hosted, request, self._shared_by(request), started_ns)

    def _body(self, request: Request) -> bytes:
        return unpack(request.body, request.headers.get("content-encoding", ""), self._limit_bytes)


def _no_such(request: Request) -> NotFound:
    return NotFound(f"There is no {request.method} {request.target!r:.120}.")


def _json(value: object, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(value))
