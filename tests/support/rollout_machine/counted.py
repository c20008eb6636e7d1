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
from collections.abc import Iterator
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
    ended_at_s: float
    mark: int
    is_sound: bool


class _Seen(NamedTuple):
    """A rollout as it was at a look."""

    position: int
    rollout: Rollout
    canary: Counter[int]
    control: Counter[int]


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
                            body.ended_at_s,
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
        now = _Seen(position, rollout, _marks(rollout, canary=True), _marks(rollout, canary=False))
        for counted, of_canaries in ((now.canary, True), (now.control, False)):
            there = Counter(
                window.mark
                for window in self._between(began, now)
                if (window.manifest_sha256 == rollout.manifest_sha256) is of_canaries
                and rollout.deployments.of_device(window.device_id) is not None
            )
            assert counted <= there, "a window is counted twice, or for what it is not"
        self._check_none_left_out(self._seen.get(rollout.number), now)
        self._seen[rollout.number] = now

    def _between(self, position: int, now: _Seen) -> Iterator[_Window]:
        """Yield the sound windows of a rollout's model that it has read since a position."""
        for window in self._windows:
            is_of_model = window.is_sound and window.model == now.rollout.model
            if is_of_model and position < window.position <= now.position:
                yield window

    def _check_none_left_out(self, before: _Seen | None, now: _Seen) -> None:
        """Check that what devices said which were canaries or controls all the while is counted."""
        if before is None or not (_judges_on(before.rollout) and _judges_on(now.rollout)):
            return
        if before.rollout.decisions != now.rollout.decisions:
            return  # what came before a decision is for another stage than what came after it
        canary, control = Counter[int](), Counter[int]()
        for window in self._between(before.position, now):
            if _is_canarys(before.rollout, window) and _is_canarys(now.rollout, window):
                canary[window.mark] += 1
            elif _is_controls(before.rollout, window) and _is_controls(now.rollout, window):
                control[window.mark] += 1
        assert canary <= now.canary - before.canary, "a window of a canary is left out"
        assert control <= now.control - before.control, "a window of a control is left out"


def _judges_on(rollout: Rollout) -> bool:
    if rollout.status not in {Status.RUNNING, Status.PAUSED} or not rollout.stages:
        return False
    return rollout.stages[-1].ended_s is None


def _is_canarys(rollout: Rollout, window: _Window) -> bool:
    """Whether a window is of the version, from a device that runs it and did so when the window began."""
    found = rollout.deployments.of_device(window.device_id)
    if found is None or found.attempt.state is not DeploymentState.SUCCEEDED:
        return False
    since_s = found.answers_since_s
    is_of_version = window.manifest_sha256 == rollout.manifest_sha256
    return is_of_version and since_s is not None and window.started_at_s >= since_s


def _is_controls(rollout: Rollout, window: _Window) -> bool:
    """Whether a window of this stage is of another version, from a device that was not sent this one."""
    found = rollout.deployments.of_device(window.device_id)
    if found is None or found.previous_version is None or found.attempt.ordered_s is not None:
        return False
    is_of_stage = window.ended_at_s >= rollout.stages[-1].started_s
    is_queued = found.attempt.state is DeploymentState.QUEUED
    return is_of_stage and is_queued and window.manifest_sha256 != rollout.manifest_sha256


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
