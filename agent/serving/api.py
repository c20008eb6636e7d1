"""The local inference API: the JSON subset of the Open Inference Protocol (version 2), and feedback.

==========  ================================  =====================================================
method      path                              answer
==========  ================================  =====================================================
GET         /v2                               the server's name and version
GET         /v2/health/live                   200 while the process answers
GET         /v2/health/ready                  200 if every model on the device answers, else 503
GET         /v2/models/{model}                the answering version's signature
GET         /v2/models/{model}/ready          200 if a version answers, else 404
POST        /v2/models/{model}/infer          predictions
POST        /v2/models/{model}/feedback       counts labels for an earlier prediction (ours)
==========  ================================  =====================================================

``docs/reference/agent-api.md`` shows requests and answers. An error is ``{"error": sentence, "code": code}``.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.capabilities import agent_version
from agent.hosting import Answer, Host
from agent.log import unexpected_failure
from agent.serving.http import Response
from agent.serving.tensors import DATATYPES, RequestTensor, ResponseTensor, read_inputs, write_outputs
from agent.telemetry.window import Counter
from fleet.protocol.errors import (
    InferenceFailed,
    InvalidInput,
    InvalidMessage,
    MessageTooLarge,
    MusterError,
    NotFound,
    Unavailable,
)

log = logging.getLogger(__name__)

_Request = TypeVar("_Request", bound=msgspec.Struct)

REMEMBERED_PREDICTIONS = 4096
"""How many of the latest answers can still be labelled."""

_STATUS: tuple[tuple[type[MusterError], int], ...] = (
    (MessageTooLarge, 413),
    (InvalidInput, 400),
    (NotFound, 404),
    (InferenceFailed, 500),
    (Unavailable, 503),
)


class InferRequest(msgspec.Struct):
    """A request for predictions."""

    inputs: list[RequestTensor]
    id: str | None = None


class InferResponse(msgspec.Struct, omit_defaults=True):
    """Predictions. The id by which they can be labelled is a parameter: there the protocol has room."""

    model_name: str
    model_version: str
    outputs: list[ResponseTensor]
    parameters: dict[str, str] = msgspec.field(default_factory=dict)
    id: str | None = None


class FeedbackRequest(msgspec.Struct):
    """What was true: for each sample of a prediction its class, by number or by name."""

    id: str
    labels: list[int | str]


class FeedbackResponse(msgspec.Struct):
    """How the prediction did."""

    labelled: int
    correct: int


class _Prediction(NamedTuple):
    """What is remembered of an answer."""

    model: str
    classes: NDArray[np.int64]
    class_count: int
    names: tuple[str, ...]
    counter: Counter


class InferenceApi:
    """Answers the requests of the local API.

    Args:
        host: The models that answer.
        is_ready: Tells whether every model on the device answers.
    """

    def __init__(self, host: Host, is_ready: Callable[[], bool]) -> None:
        self._host = host
        self._is_ready = is_ready
        self._predictions: OrderedDict[str, _Prediction] = OrderedDict()

    async def respond(self, method: str, target: str, body: bytes) -> Response:
        """Answer one request; every failure is an answer too."""
        try:
            return await self._route(method, target.partition("?")[0], body)
        except MusterError as error:
            return self.refuse(error)
        except Exception:
            log.exception("A request failed unexpectedly.")
            return self.refuse(unexpected_failure())

    def refuse(self, error: MusterError) -> Response:
        """Return the answer that tells of an error."""
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return _json(status, {"error": str(error), "code": error.code})

    async def _route(self, method: str, path: str, body: bytes) -> Response:
        match (method, path.rstrip("/").split("/")[1:]):
            case ("GET", ["v2"]):
                return _json(
                    200, {"name": "muster-agent", "version": agent_version(), "extensions": ["feedback"]}
                )
            case ("GET", ["v2", "health", "live"]):
                return _json(200, {"live": True})
            case ("GET", ["v2", "health", "ready"]):
                ready = self._is_ready()
                return _json(200 if ready else 503, {"ready": ready})
            case ("GET", ["v2", "models", model]):
                return self._describe(model)
            case ("GET", ["v2", "models", model, "ready"]):
                self._host.answering(model)
                return _json(200, {"name": model, "ready": True})
            case ("POST", ["v2", "models", model, "infer"]):
                return await self._infer(model, body)
            case ("POST", ["v2", "models", model, "feedback"]):
                return self._feedback(model, body)
        raise NotFound(f"There is no {method} {path!r:.120}.")

    def _describe(self, model: str) -> Response:
        hosted = self._host.answering(model)
        manifest = hosted.manifest
        described = {
            kind: [
                {
                    "name": tensor.name,
                    "datatype": DATATYPES.get(tensor.dtype, tensor.dtype),
                    "shape": tensor.shape,
                }
                for tensor in tensors
            ]
            for kind, tensors in (
                ("inputs", manifest.signature.inputs),
                ("outputs", manifest.signature.outputs),
            )
        }
        about = {"name": model, "versions": [str(manifest.version)], "platform": hosted.platform}
        return _json(200, {**about, **described})

    async def _infer(self, model: str, body: bytes) -> Response:
        hosted = self._host.answering(model)
        request = _decode(body, InferRequest)
        answer = await hosted.infer(read_inputs(request.inputs, hosted.manifest.signature))
        response = InferResponse(
            model_name=model,
            model_version=str(answer.version),
            id=request.id,
            outputs=write_outputs(answer.outputs),
            parameters=self._remembered(model, answer, hosted.manifest.signature.classes),
        )
        return Response(200, msgspec.json.encode(response))

    def _remembered(self, model: str, answer: Answer, names: tuple[str, ...]) -> dict[str, str]:
        """Remember what may be labelled; return the parameters that say how to name it."""
        if answer.classes is None:
            return {}
        prediction_id = secrets.token_hex(8)
        self._predictions[prediction_id] = _Prediction(
            model, answer.classes, answer.class_count, names, answer.counter
        )
        if len(self._predictions) > REMEMBERED_PREDICTIONS:
            self._predictions.popitem(last=False)
        return {"prediction_id": prediction_id}

    def _feedback(self, model: str, body: bytes) -> Response:
        request = _decode(body, FeedbackRequest)
        prediction = self._predictions.get(request.id)
        if prediction is None or prediction.model != model:
            self._check_classifier(model)
            raise NotFound(
                "No prediction of this model with that id can be labelled.",
                remedy=f"Each of the last {REMEMBERED_PREDICTIONS} predictions can be labelled once.",
            )
        if len(request.labels) != len(prediction.classes):
            raise InvalidMessage(
                f"{len(request.labels)} label(s) came for {len(prediction.classes)} sample(s)."
            )
        truth = [_class_number(label, prediction) for label in request.labels]
        del self._predictions[request.id]
        correct = sum(int(a == b) for a, b in zip(truth, prediction.classes.tolist(), strict=True))
        self._host.count_labels(prediction.counter, len(truth), correct)
        return Response(200, msgspec.json.encode(FeedbackResponse(len(truth), correct)))

    def _check_classifier(self, model: str) -> None:
        """Check that a model's answers can be labelled at all."""
        hosted = self._host.get(model)
        if hosted is not None and hosted.manifest.signature.task != "classification":
            raise InvalidInput(
                f"Model {model} is for {hosted.manifest.signature.task}; labels are classes.",
                remedy="Send feedback for classifiers only.",
            )


def _class_number(label: int | str, prediction: _Prediction) -> int:
    names = prediction.names
    number = names.index(label) if isinstance(label, str) and label in names else label
    if isinstance(number, str) or not 0 <= number < prediction.class_count:
        raise InvalidMessage(f"{label!r:.40} is not a class of this model.")
    return number


def _decode(body: bytes, kind: type[_Request]) -> _Request:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"The request cannot be understood: {error}.") from error


def _json(status: int, value: object) -> Response:
    return Response(status, msgspec.json.encode(value))
