"""Labels that come later: which predictions can be labelled, and what a label counts as.

Only what classifiers answered: their predictions alone have an id.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.hosting import Answer, Host
from agent.telemetry.window import Counter
from fleet.protocol.errors import InvalidInput, InvalidMessage, NotFound

REMEMBERED_PREDICTIONS = 4096
"""How many of the latest answers can still be labelled."""


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


class Feedback:
    """The predictions that can be labelled.

    Args:
        host: Counts the labels.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._predictions: OrderedDict[str, _Prediction] = OrderedDict()

    def remember(self, model: str, answer: Answer, names: tuple[str, ...]) -> str | None:
        """Remember an answer; return the id to label it by, None if it cannot be labelled.

        Args:
            model: Who answered.
            answer: What.
            names: Of the classes.
        """
        if answer.classes is None:
            return None
        prediction_id = secrets.token_hex(8)
        self._predictions[prediction_id] = _Prediction(
            model, answer.classes, answer.class_count, names, answer.counter
        )
        if len(self._predictions) > REMEMBERED_PREDICTIONS:
            self._predictions.popitem(last=False)
        return prediction_id

    def label(self, model: str, request: FeedbackRequest) -> FeedbackResponse:
        """Count the labels of a prediction, once.

        Raises:
            InvalidInput: The labels are not of this model's classes, or it has none.
            NotFound: There is no such prediction.
        """
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
        return FeedbackResponse(len(truth), correct)

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
