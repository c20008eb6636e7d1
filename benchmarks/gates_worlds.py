"""Simulated fleets in which a version is rolled out: what every device would report of either version.

A world is drawn once and then judged by every rule, so that all see the same evidence. Worlds differ as
fleets do, which no rule is told:

=================  ==================================================================================
share of errors    0.1 % to 2 % of requests, evenly in its logarithm; every class has a multiple of it
requests           20 to 200 in a device's window, likewise
latency            lognormal, median 5 to 50 ms, a multiple of it in every class
the hour           errors and latency rise and fall by a third; in one world of five there is an
                   incident, such as a network's, that adds 3 points of errors for some minutes
devices            their shares follow a beta distribution with an intra-class correlation (0: all alike)
=================  ==================================================================================

The hour and the incident are the same for both versions: the fault of neither.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.latency import BUCKETS_PER_OCTAVE, LAST_BUCKET

DEVICES = 1000
CLASSES = ("jetson", "pi3", "pi4", "pi5")
SHARES = (0.45, 0.30, 0.15, 0.10)
"""Of the devices, by class."""
STAGES = (0.04, 0.2, 0.5, 0.95, 1.0)
"""The last twentieth is the control group to the end; nothing has to be proved of it."""
JUDGED = len(STAGES) - 1
PACE = 10
"""Devices that are sent the version in the time of a window, the unit of all times here."""
MINIMUM_BAKE = 10
MAXIMUM_BAKE = 60
TICKS = DEVICES // PACE + MAXIMUM_BAKE * JUDGED
HARMED_CLASS = 2
DURATIONS = 20
"""Durations in a window of a device."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Harm(NamedTuple):
    """What is wrong with the new version.

    Attributes:
        name: In few words.
        errors: Points of errors that it adds, as a share.
        latency: How many times slower it is.
        one_class: Whether only devices of `HARMED_CLASS` are harmed.
        correlation: Of the answers of one device, see `fleet.rollout.gates.dispersion`.
    """

    name: str
    errors: float = 0.0
    latency: float = 1.0
    one_class: bool = False
    correlation: float = 0.0

    @property
    def is_harmless(self) -> bool:
        """Whether nothing is wrong."""
        return self.errors == 0.0 and self.latency == 1.0


class World(NamedTuple):
    """What is reported, by time and device in the order in which devices are reached.

    Attributes:
        classes: Class of each device, shape (devices,).
        requests: Shape (ticks, devices).
        errors: Of the old and of the new version, shape (2, ticks, devices).
        durations: Latency buckets likewise, shape (2, ticks, devices, `DURATIONS`); empty if not asked for.
    """

    classes: Ints
    requests: Ints
    errors: Ints
    durations: NDArray[np.int16]


def draw(harm: Harm, rng: np.random.Generator, *, ticks: int = TICKS, latency: bool = False) -> World:
    """Return a world.

    Args:
        harm: What is wrong with the new version.
        rng: Draws it.
        ticks: How long it lasts.
        latency: Whether latency is drawn, which takes long.
    """
    classes = _interleaved()
    shape = (ticks, DEVICES)
    requests = np.maximum(1, rng.poisson(_log_uniform(rng, 20.0, 200.0), shape))
    hour = 1.0 + np.sin(np.arange(ticks) / rng.uniform(20.0, 80.0) + rng.uniform(0.0, 6.3)) / 3.0
    share = _differing(
        rng, _log_uniform(rng, 0.001, 0.02) * rng.uniform(0.5, 2.0, len(CLASSES))[classes], harm
    )
    incident = np.zeros(ticks)
    if rng.random() < 0.2:
        begin = int(rng.integers(ticks))
        incident[begin : begin + int(rng.integers(3, 15))] = 0.03
    old = np.minimum(1.0, share * hour[:, None] + incident[:, None])
    harmed = (classes == HARMED_CLASS) if harm.one_class else np.ones(DEVICES, bool)
    new = np.minimum(1.0, old + harm.errors * harmed)
    errors = np.stack([rng.binomial(requests, old), rng.binomial(requests, new)])
    durations = np.zeros((2, ticks, DEVICES, 0), np.int16)
    if latency:
        durations = _durations(rng, classes, hour, harm.latency, harmed)
    return World(classes, requests, errors, durations)


def reaches() -> list[int]:
    """Return how many devices each stage reaches."""
    return [round(share * DEVICES) for share in STAGES]


def sent(stage: int, baking: int) -> list[int]:
    """Return how many devices have the version at each time of a stage: while it is released, then baked."""
    ends = [0, *reaches()]
    releasing = list(range(ends[stage] + PACE, ends[stage + 1] + PACE, PACE))
    return [min(number, ends[stage + 1]) for number in (*releasing, *[ends[stage + 1]] * baking)]


def _interleaved() -> Ints:
    """Return classes so that every stage has each in its share, as the engine's stratified cohorts do."""
    ranks = [(np.arange(round(share * DEVICES)) + 0.5) / round(share * DEVICES) for share in SHARES]
    places = np.concatenate(ranks)
    numbers = np.concatenate([np.full(len(rank), number) for number, rank in enumerate(ranks)])
    return numbers[np.argsort(places, kind="stable")]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _differing(rng: np.random.Generator, share: Floats, harm: Harm) -> Floats:
    """Return each device's share, of beta distributions around its class's; in no order of any meaning."""
    if harm.correlation == 0.0:
        return share
    size = 1.0 / harm.correlation - 1.0
    return rng.beta(share * size, (1.0 - share) * size)


def _durations(
    rng: np.random.Generator, classes: Ints, hour: Floats, slower: float, harmed: NDArray[np.bool_]
) -> NDArray[np.int16]:
    median_us = 1000.0 * _log_uniform(rng, 5.0, 50.0) * rng.uniform(0.5, 3.0, len(CLASSES))[classes]
    middle = np.log2(median_us)[None, :, None] + np.log2(hour)[:, None, None]
    size = (2, len(hour), len(classes), DURATIONS)
    drawn = rng.standard_normal(size, np.float32) * np.float32(0.5)
    drawn += middle.astype(np.float32)
    drawn[1] += (np.log2(slower) * harmed)[None, :, None].astype(np.float32)
    buckets: NDArray[np.int16] = np.clip(drawn * BUCKETS_PER_OCTAVE, 0, LAST_BUCKET).astype(np.int16)
    return buckets
