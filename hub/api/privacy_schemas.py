"""Shapes of the API: noise on counts, and what noised counts show."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.privacy.noise import LEAST_EPSILON, MOST_EPSILON
from hub.api.schemas import Schema


class CountNoiseIn(Schema):
    """How private a device's counts have to be at least; null for as its owner set it."""

    epsilon: Annotated[float, Field(ge=LEAST_EPSILON, le=MOST_EPSILON)] | None


class RoughDriftOut(Schema):
    """One feature of noised counts beside the reference; null where there is nothing but noise."""

    feature: str
    values: int
    distance: float | None
    noise: float | None
    sentence: str


class NoisedOut(Schema):
    """What devices with noise on their counts told of a version: about, never exactly.

    ``predictions`` and the three after it are rounded up to 0; ``deviation`` is the standard deviation of the
    noise on each of them, and ``epsilon`` that of the least private device.
    """

    version: int
    windows: int
    epsilon: float
    deviation: float
    predictions: int
    errors: int
    labelled: int
    correct: int
    features: list[RoughDriftOut]


class NoisedAllOut(Schema):
    """Noised counts of a model, by version, of the days that begin in a span of time."""

    start_s: float
    end_s: float
    items: list[NoisedOut]
