"""The shapes of answers about the quality of a model's answers."""

from __future__ import annotations

from hub.api.schemas import Schema


class EstimateOut(Schema):
    """An accuracy with an interval that leaves out the truth with a probability of 5 %."""

    value: float
    lower: float
    upper: float


class PoweredOut(Schema):
    """An accuracy from labels and confidences together, and how many labels alone would say as much."""

    value: float
    lower: float
    upper: float
    worth_labels: float


class DoubtOut(Schema):
    """Why not to believe the numbers."""

    code: str
    sentence: str


class ConceptDriftOut(Schema):
    """The test for concept drift: its alarm, its looks, and the decimal logarithm of the evidence."""

    alarm: bool
    looks: int
    evidence: float
    waiting_labels: int


class QualityOut(Schema):
    """How good the answers of one version are, in one cohort; empty for the whole fleet."""

    cohort: str
    version: int
    answers: int
    held_out_accuracy: float | None
    held_out_samples: int
    estimated_accuracy: EstimateOut | None
    thresholded_accuracy: float | None
    labelled: int
    correct: int
    labelled_accuracy: EstimateOut | None
    powered_accuracy: PoweredOut | None
    unknown_labels: int
    concept_drift: ConceptDriftOut | None
    concept_drift_devices: list[str]
    doubts: list[DoubtOut]
    sentences: list[str]


class QualitiesOut(Schema):
    """How good the answers of a model are, over a range of time."""

    start_s: float
    end_s: float
    items: list[QualityOut]
