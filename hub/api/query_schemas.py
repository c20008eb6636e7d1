"""The shapes of answers to questions about the fleet."""

from __future__ import annotations

from hub.api.schemas import CauseOut, Schema


class SeriesOut(Schema):
    """Metrics over time: of each row the start of its span, its group, and a field for each metric."""

    start_s: float
    end_s: float
    resolution_s: int
    items: list[dict[str, str | int | float | None]]


class MatrixCellOut(Schema):
    """How far a feature of a cohort was from the reference of a version, in one span of time."""

    feature: str
    cohort: str
    version: int
    start_s: float
    samples: int
    value: float | None


class MatrixOut(Schema):
    """The drift matrix."""

    metric: str
    start_s: float
    end_s: float
    resolution_s: int
    items: list[MatrixCellOut]


class HistogramOut(Schema):
    """Counts of a feature beside the reference of its version; cells as in the reference of drift."""

    feature: str
    version: int
    edges: list[float] | None
    reference: list[int]
    reference_missing: int
    current: list[int]
    current_missing: int
    minimum: float | None
    maximum: float | None
    metrics: dict[str, float | None]


class HistogramsOut(Schema):
    """What devices counted over a range of time, beside the references."""

    start_s: float
    end_s: float
    items: list[HistogramOut]


class DifferenceOut(Schema):
    """One row of a comparison; left and right are None of features, whose distributions are compared."""

    quantity: str
    left: float | None
    right: float | None
    left_samples: int
    right_samples: int
    difference: float | None
    lower: float | None
    upper: float | None
    is_shown: bool
    sentence: str
    psi: float | None
    jensen_shannon: float | None
    wasserstein: float | None


class ComparisonOut(Schema):
    """A comparison: all intervals hold together with probability ``confidence``, however often one looks."""

    start_s: float
    end_s: float
    confidence: float
    items: list[DifferenceOut]


class TimelineEntryOut(Schema):
    """One thing that happened to a device; ``at_s`` is the hub's time, ``device_at_s`` the device's."""

    at_s: float
    device_at_s: float | None
    kind: str
    text: str
    model: str | None
    version: int | None
    deployment_id: str | None
    state: str | None
    cause: CauseOut | None
    by: str | None
