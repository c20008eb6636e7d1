"""What came of a simulated rollout, and of many; everything in it follows from the seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from fleet.rollout.state.rollout import HistoryEntry, Status


class Judgement(StrEnum):
    """Whether the rollout ended as it ought to.

    RIGHT: A harmful version was stopped, a harmless one reached everybody.
    FALSE_STOP: A harmless version was rolled back, or the gate said FAIL of it.
    MISSED_HARM: A harmful version reached everybody.
    HELD: It waits for a person, and the gate did not say FAIL.
    ENDED: People ended it, and the gate did not.
    """

    RIGHT = "right"
    FALSE_STOP = "false stop"
    MISSED_HARM = "missed harm"
    HELD = "held"
    ENDED = "ended by people"


class StageOutcome(msgspec.Struct, frozen=True):
    """What came of a stage that began.

    Attributes:
        name: As in the plan.
        devices: How many it added.
        succeeded: How many of them run the version, or did before they were led back.
        failed: How many did not follow.
        took_s: From its beginning to its end, or until the rollout waited for a person; else to the
            simulation's end.
        expected_s: What the dry run would expect, were the installs' median known.
        promoted: Whether an operator ended it.
    """

    name: str
    devices: int
    succeeded: int
    failed: int
    took_s: float
    expected_s: float
    promoted: bool


class Outcome(msgspec.Struct, frozen=True):
    """What came of one rollout.

    Attributes:
        seed: Of fleet, chance and cohorts.
        judgement: See there.
        ought_to_stop: Whether a good gate stops it: the version harms devices that the plan means.
        status: In the end.
        reason: Of that: the cause, or why it is paused; empty for success.
        duration_s: From the start to the end of the rollout, or until it waited for a person in vain; else to
            the simulation's end.
        devices: How many the rollout has in the end.
        counts: How many of them are in each state of the way forward.
        not_back: How many were to go back and did not.
        unaccounted: How many have no final outcome although the rollout ended; anything but 0 is a defect.
        stages: Those that began.
        got_it: How many devices ever ran the version.
        harmed: How many of them it did harm to.
        stopped_s: When progress was stopped by harm or for want of evidence; None if it never was.
        got_it_before_stop: How many devices ran the version until then; all, if it never was.
        harmed_before_stop: Likewise those that it did harm to.
        received_bytes: What devices downloaded.
        orders: How many orders were given.
        reports: How many reports of devices arrived, doubles included.
        windows: How many telemetry windows arrived.
        steps: How many batches the engine was given.
        history: Every decision, times from the start.
        refused: What operators were refused.
    """

    seed: int
    judgement: Judgement
    ought_to_stop: bool
    status: Status
    reason: str
    duration_s: float
    devices: int
    counts: dict[str, int]
    not_back: int
    unaccounted: int
    stages: tuple[StageOutcome, ...]
    got_it: int
    harmed: int
    stopped_s: float | None
    got_it_before_stop: int
    harmed_before_stop: int
    received_bytes: int
    orders: int
    reports: int
    windows: int
    steps: int
    history: tuple[HistoryEntry, ...]
    refused: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """What came of all runs.

    Attributes:
        scenario: Its name or file.
        about: What it says of itself.
        ought_to_stop: Whether a good gate stops the rollout.
        judgements: How many runs ended how.
        runs: Each of them.
    """

    scenario: str
    about: str
    ought_to_stop: bool
    judgements: dict[str, int]
    runs: tuple[Outcome, ...]

    @classmethod
    def of(cls, scenario: str, about: str, *, ought_to_stop: bool, runs: Sequence[Outcome]) -> Report:
        """Return the report on these runs."""
        found = Counter(run.judgement for run in runs)
        judgements = {judgement.value: found[judgement] for judgement in Judgement if found[judgement]}
        return cls(scenario, about, ought_to_stop, judgements, tuple(runs))


def judged(status: Status, *, ought_to_stop: bool, gate_failed: bool, by_people: bool) -> Judgement:
    """Return whether a rollout ended as it ought to.

    Args:
        status: In the end.
        ought_to_stop: Whether a good gate stops it.
        gate_failed: Whether gate or installs said FAIL.
        by_people: Whether operators ended it.
    """
    if gate_failed:
        return Judgement.RIGHT if ought_to_stop else Judgement.FALSE_STOP
    if by_people:
        return Judgement.ENDED
    if status is Status.SUCCEEDED:
        return Judgement.MISSED_HARM if ought_to_stop else Judgement.RIGHT
    if status in {Status.ROLLED_BACK, Status.FAILED, Status.ROLLING_BACK}:
        return Judgement.RIGHT if ought_to_stop else Judgement.FALSE_STOP
    return Judgement.HELD
