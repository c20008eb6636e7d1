"""Labels that come later: which predictions can be labelled, and what a label counts as.

Only what classifiers answered: their predictions alone have an id. Ids count up from a random number, so that
one from before a restart is not taken for another. Any thread may remember; labels are for the event loop.

With each label is counted how sure the answer was, see `fleet.protocol.labels`. Labels for a prediction that
is not known are refused, and that they came is counted: for the model that they name, else for the one that
answered last.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

import msgspec

from agent.hosting.answers import Answer
from agent.hosting.host import Host
from agent.telemetry.window import Counter
from fleet.protocol.errors import InvalidInput, InvalidMessage, NotFound

REMEMBERED_PREDICTIONS = 4096
"""How many of the latest answers can still be labelled."""

ID_DIGITS = 16
"""An id in JSON is text: not every reader of JSON takes numbers of 64 bits."""


class FeedbackRequest(msgspec.Struct):
    """What was true: for each sample of a prediction its class, by number or by name."""

    id: str
    labels: list[int | str]

    @property
    def number(self) -> int:
        """The prediction's id; 0, which none has, if it is not of the form of an id."""
        is_id = len(self.id) == ID_DIGITS and set(self.id) <= set("0123456789abcdef")
        return int(self.id, 16) if is_id else 0


class FeedbackResponse(msgspec.Struct):
    """How the prediction did."""

    labelled: int
    correct: int


class _Answerer(NamedTuple):
    """What the predictions of a version have in common."""

    model: str
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
        self._next_id = secrets.randbits(63) + 1  # fits 64 bits, and is never 0
        self._lock = Lock()
        # By id, modulo. Nothing is made for an answer: thousands of objects would be in the processor's and
        # the garbage collector's way.
        self._ids = array("Q", bytes(8 * REMEMBERED_PREDICTIONS))
        self._classes: list[int | list[int]] = [0] * REMEMBERED_PREDICTIONS
        self._confidences = array("d", bytes(8 * REMEMBERED_PREDICTIONS))  # of predictions of one sample
        self._confidences_of_many: dict[int, list[float]] = {}  # of others, by place
        self._answerers: list[_Answerer | None] = [None] * REMEMBERED_PREDICTIONS
        self._last: _Answerer | None = None

    def remember(self, model: str, answer: Answer, names: tuple[str, ...]) -> int | None:
        """Remember an answer; return the id to label it by, None if it cannot be labelled.

        Args:
            model: Who answered.
            answer: What.
            names: Of the classes.
        """
        if answer.classes is None or answer.scores is None:
            return None
        classes, scores = answer.classes.tolist(), answer.scores
        confidences = [scores.item(classes[0])] if len(classes) == 1 else scores.max(axis=1).tolist()
        class_count = scores.shape[1]
        with self._lock:
            answerer = self._last
            if (
                answerer is None
                or answerer.counter is not answer.counter
                or answerer.class_count != class_count
            ):
                answerer = self._last = _Answerer(model, class_count, names, answer.counter)
            prediction_id = self._next_id
            self._next_id += 1
            place = prediction_id % REMEMBERED_PREDICTIONS
            self._ids[place] = prediction_id
            self._confidences_of_many.pop(place, None)
            if len(classes) == 1:
                self._classes[place], self._confidences[place] = classes[0], confidences[0]
            else:
                self._classes[place], self._confidences_of_many[place] = classes, confidences
            self._answerers[place] = answerer
        return prediction_id

    def label(self, model: str | None, prediction_id: int, labels: Sequence[int | str]) -> FeedbackResponse:
        """Count the labels of a prediction, once.

        Args:
            model: Whose prediction it is; None: of any.
            prediction_id: As it was answered.
            labels: For each sample what was true.

        Raises:
            InvalidInput: The labels are not of this model's classes, or it has none.
            NotFound: There is no such prediction.
        """
        place = prediction_id % REMEMBERED_PREDICTIONS
        with self._lock:
            answerer = self._answerers[place] if self._ids[place] == prediction_id else None
            found = self._classes[place]
            confidences = self._confidences_of_many.get(place, [self._confidences[place]])
        if answerer is None or model not in (None, answerer.model):
            self._check_classifier(model)
            self._count_unknown(model)
            raise NotFound(
                "No prediction of this model with that id can be labelled.",
                remedy=f"Each of the last {REMEMBERED_PREDICTIONS} predictions can be labelled once.",
            )
        classes = [found] if isinstance(found, int) else found
        if len(labels) != len(classes):
            raise InvalidMessage(f"{len(labels)} label(s) came for {len(classes)} sample(s).")
        truth = [_class_number(label, answerer) for label in labels]
        with self._lock:
            if self._ids[place] == prediction_id:
                self._answerers[place] = None
        are_correct = [a == b for a, b in zip(truth, classes, strict=True)]
        self._host.count_labels(answerer.counter, are_correct, confidences)
        return FeedbackResponse(len(truth), sum(are_correct))

    def _check_classifier(self, model: str | None) -> None:
        """Check that a model's answers can be labelled at all."""
        hosted = None if model is None else self._host.get(model)
        if hosted is not None and hosted.manifest.signature.task != "classification":
            raise InvalidInput(
                f"Model {model} is for {hosted.manifest.signature.task}; labels are classes.",
                remedy="Send feedback for classifiers only.",
            )

    def _count_unknown(self, model: str | None) -> None:
        hosted = None if model is None else self._host.get(model)
        if hosted is not None:
            self._host.count_unknown_label(hosted.counter)
        elif model is None and self._last is not None:
            self._host.count_unknown_label(self._last.counter)


def _class_number(label: int | str, answerer: _Answerer) -> int:
    names = answerer.names
    number = names.index(label) if isinstance(label, str) and label in names else label
    if isinstance(number, str) or not 0 <= number < answerer.class_count:
        raise InvalidMessage(f"{label!r:.40} is not a class of this model.")
    return number
