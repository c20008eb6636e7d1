"""No record is judged twice, and none is left out: told from the evidence itself.

Every window carries its own mark, one duration in a bucket that turns with the number of its record; all
others are in bucket 0. A gate that compares latencies keeps the buckets of all windows that it counted, so
the evidence of a rollout says which they were, and how often each::

    window 41   {0: 899, 42: 1}      stored twice by its device, killed half way, read again: one in bucket 42
    window 42   {0: 899, 43: 1}

That is held against the records in the store, which the machine reads as anybody could. It needs no second
hub, and no word of the engine's about what it took.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.heads import read_record
from fleet.protocol.latency import LAST_BUCKET, LatencyCounts
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.windows import contradiction
from fleet.rollout.gates.evidence import Tally
from fleet.rollout.plans.plan import Metric
from fleet.rollout.state.rollout import Rollout, Status
from hub.store.protocols import Store


class _Window(NamedTuple):
    """A window in the store."""

    position: int
    device_id: str
    model: str
    manifest_sha256: str
    started_at_s: float
    mark: int
    is_sound: bool


class _Seen(NamedTuple):
    """A rollout as it was at a look."""

    position: int
    rollout: Rollout
    canary_marks: Counter[int]


def marked(number: int, durations: int) -> LatencyCounts:
    """Return the durations of a window, with its mark.

    Args:
        number: Of its record.
        durations: How many there are.
    """
    return {0: durations - 1, 1 + number % LAST_BUCKET: 1}


class Counted:
    """What rollouts have counted, beside what there is to count."""

    def __init__(self) -> None:
        self._read = self._read_before = 0
        self._windows: list[_Window] = []
        self._keys: set[tuple[str, str, int]] = set()
        self._began: dict[int, int] = {}
        self._seen: dict[int, _Seen] = {}

    def read(self, store: Store) -> None:
        """Read the records that are new in the store; none is there twice."""
        self._read_before = self._read
        while records := store.raw_records_after(self._read):
            for raw in records:
                record = read_record(raw.data)
                key = raw.device_id, record.stream, record.number
                assert key not in self._keys, "a record is stored twice"
                self._keys.add(key)
                if isinstance(body := record.body, TelemetryWindow):
                    (mark,) = body.latency.keys() - {0}
                    self._windows.append(
                        _Window(
                            raw.position,
                            raw.device_id,
                            body.model,
                            body.manifest_sha256,
                            body.started_at_s,
                            mark,
                            contradiction(body) is None,
                        )
                    )
            self._read = records[-1].position

    def check(self, rollout: Rollout, position: int) -> None:
        """Check what a rollout has counted.

        Args:
            rollout: As it is stored.
            position: Of the record that it read last.
        """
        if rollout.status is Status.CREATED or not rollout.plan.gate.metrics:
            return
        began = self._began.setdefault(rollout.number, self._read_before)
        marks = _marks(rollout, canary=True), _marks(rollout, canary=False)
        for counted, of_canaries in zip(marks, (True, False), strict=True):
            there = Counter(
                window.mark
                for window in self._windows
                if began < window.position <= position
                and window.is_sound
                and window.model == rollout.model
                and (window.manifest_sha256 == rollout.manifest_sha256) is of_canaries
                and rollout.deployments.of_device(window.device_id) is not None
            )
            assert counted <= there, "a window is counted twice, or for what it is not"
        self._check_none_left_out(rollout, position, marks[0])
        self._seen[rollout.number] = _Seen(position, rollout, marks[0])

    def _check_none_left_out(self, rollout: Rollout, position: int, marks: Counter[int]) -> None:
        """Check that what devices said which ran the version all the while is counted."""
        before = self._seen.get(rollout.number)
        if before is None or not (_judges_on(before.rollout) and _judges_on(rollout)):
            return
        if before.rollout.stage_index != rollout.stage_index or before.rollout.decisions != rollout.decisions:
            return  # what came before a decision is for another stage than what came after it
        said = Counter(
            window.mark
            for window in self._windows
            if before.position < window.position <= position
            and window.is_sound
            and window.model == rollout.model
            and window.manifest_sha256 == rollout.manifest_sha256
            and _answers(before.rollout, window)
            and _answers(rollout, window)
        )
        assert said <= marks - before.canary_marks, "a window is left out"


def _judges_on(rollout: Rollout) -> bool:
    if rollout.status not in {Status.RUNNING, Status.PAUSED} or not rollout.stages:
        return False
    return rollout.stages[-1].ended_s is None


def _answers(rollout: Rollout, window: _Window) -> bool:
    """Whether the device of a window runs the version and did so when the window began."""
    found = rollout.deployments.of_device(window.device_id)
    if found is None or found.attempt.state is not DeploymentState.SUCCEEDED:
        return False
    return found.answers_since_s is not None and window.started_at_s >= found.answers_since_s


def _marks(rollout: Rollout, *, canary: bool) -> Counter[int]:
    """Return which marks the evidence of all stages has, and check that it has one of each window."""
    place = [metric.metric for metric in rollout.plan.gate.metrics].index(Metric.LATENCY)
    marks: Counter[int] = Counter()
    for stage in rollout.stages:
        arm = stage.evidence.canary if canary else stage.evidence.control
        own = _without_rest(arm.tallies[place])
        assert own.total() == arm.windows
        marks += own
    return marks


def _without_rest(tally: Tally) -> Counter[int]:
    return Counter({cell: count for cell, count in tally.cells.items() if cell})
