"""From telemetry windows to evidence: how many of how many were bad, for canaries and controls.

=====================  ==================================  ==============================================
metric                 bad                                 of
=====================  ==================================  ==============================================
``inference_errors``   requests that the runtime failed    requests: answers given and requests failed
``label_errors``       answers that a label contradicts    answers with a label
``unsure``             answers of a confidence below the   answers whose confidence was counted; a missing
                       threshold, or of none               one (NaN) is unsure
``slow``               durations in buckets wholly above   durations
                       the budget
=====================  ==================================  ==============================================

A window that contradicts itself counts for nothing; how many did is kept, because a canary that mostly
talks nonsense is a reason to stop and look (verdict ERROR).
"""

from __future__ import annotations

import msgspec

from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CONFIDENCE
from fleet.protocol.latency import count_above
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import contradiction
from fleet.rollout.plan import Metric, MetricGate


class Tally(msgspec.Struct, frozen=True):
    """How many of ``total`` samples were ``bad``."""

    bad: int = 0
    total: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(self.bad + other.bad, self.total + other.total)


class Arm(msgspec.Struct, frozen=True):
    """What one side of the comparison reported during a stage.

    Attributes:
        devices: How many devices contributed.
        windows: How many windows were counted.
        unusable: How many contradicted themselves and were not.
        tallies: One for each of the gate's metrics, in the plan's order.
    """

    devices: int
    windows: int
    unusable: int
    tallies: tuple[Tally, ...]

    @classmethod
    def empty(cls, metrics: int) -> Arm:
        """Return an arm that nothing was heard of, for so many metrics."""
        return cls(0, 0, 0, (Tally(),) * metrics)

    def plus(self, other: Arm) -> Arm:
        """Return both together."""
        return Arm(
            self.devices + other.devices,
            self.windows + other.windows,
            self.unusable + other.unusable,
            tuple(a.plus(b) for a, b in zip(self.tallies, other.tallies, strict=True)),
        )


class Evidence(msgspec.Struct, frozen=True):
    """Both sides of the comparison during one stage.

    Attributes:
        canary: Devices that were sent the version and run it.
        control: Devices of the rollout that were not yet sent it and run another.
    """

    canary: Arm
    control: Arm

    @classmethod
    def empty(cls, metrics: int) -> Evidence:
        """Return no evidence, for so many metrics."""
        return cls(Arm.empty(metrics), Arm.empty(metrics))


def unusable(window: TelemetryWindow) -> str | None:
    """Return why the window counts for nothing; None if it counts."""
    confidence = window.profile.get(OUTPUT_CONFIDENCE)
    if confidence is not None and len(confidence.cells) != len(CONFIDENCE_EDGES) + 1:
        return f"confidence has {len(confidence.cells)} cells in place of {len(CONFIDENCE_EDGES) + 1}"
    return contradiction(window)


def tally(window: TelemetryWindow, gate: MetricGate) -> Tally:
    """Return what a window that does not contradict itself says about one metric."""
    match gate.metric:
        case Metric.INFERENCE_ERRORS:
            return Tally(window.errors, window.predictions + window.errors)
        case Metric.LABEL_ERRORS:
            return Tally(window.labelled - window.correct, window.labelled)
        case Metric.UNSURE:
            return _unsure(window, gate)
        case Metric.SLOW:
            assert gate.budget_us is not None
            return Tally(count_above(window.latency, gate.budget_us), sum(window.latency.values()))


def observe(arm: Arm, window: TelemetryWindow, metrics: tuple[MetricGate, ...], *, is_new: bool) -> Arm:
    """Return the arm with one more window.

    Args:
        arm: So far.
        window: From a device of this arm.
        metrics: Of the gate.
        is_new: Whether the device has not contributed to the arm before.
    """
    if unusable(window) is not None:
        return msgspec.structs.replace(arm, unusable=arm.unusable + 1)
    return arm.plus(Arm(int(is_new), 1, 0, tuple(tally(window, gate) for gate in metrics)))


def _unsure(window: TelemetryWindow, gate: MetricGate) -> Tally:
    confidence = window.profile.get(OUTPUT_CONFIDENCE)
    if confidence is None:
        return Tally()
    assert gate.threshold is not None
    below = 1 + CONFIDENCE_EDGES.index(gate.threshold)  # cell 0, and the bins up to the threshold
    return Tally(sum(confidence.cells[:below]) + confidence.missing, confidence.total + confidence.missing)
