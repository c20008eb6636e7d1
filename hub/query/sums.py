"""What devices did over spans of time, added up by group: the ground of series, matrices and comparisons.

Roll-ups (`hub.store.protocols.rollups`) are kept by device and by cohort. Which are read:

==================  ===========================  ============================================
grouped by          no target                    with a target
==================  ===========================  ============================================
nothing, version    those of the whole fleet     those of the devices that are meant
an attribute        those of its cohorts         those of the devices, by their value *now*
device              those of every device        those of the devices that are meant
==================  ===========================  ============================================

Every answer is bounded: so many spans (`hub.query.times.MAX_SPANS`), devices (`MAX_DEVICES`), roll-ups
(`MAX_ROLLUPS`) and distributions (`MAX_PROFILES`); a question for more is refused. What is read is added up
as it comes, little by little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from fleet.cohorts import cohorts_of, grouping
from fleet.drift.profile import Profile, merge_profiles
from fleet.protocol.errors import InvalidInput, InvalidMessage
from fleet.protocol.labels import NO_LABELS, Labels
from fleet.protocol.latency import LatencyCounts, merge_latency
from fleet.protocol.records import TelemetryWindow
from hub.query.times import TimeRange, check_spans
from hub.store.protocols import RollupStore
from hub.store.rows import DeviceRow
from hub.store.telemetry_rows import EVERY_DEVICE, ONE_DEVICE, RollupRow

MAX_ROLLUPS = 20_000
"""Most roll-ups that one question reads; with sixteen profiled features they take some 10 s."""
MAX_DEVICES = 20_000
"""Most devices that one question may be about, one by one."""
MAX_PROFILES = 5_000
"""Most groups of one answer whose profiles are kept, some 30 kB each."""
_ROLLUPS_AT_ONCE = 1000
_DEVICES_AT_ONCE = 500


class Sum(msgspec.Struct):
    """What was done over a span of time by one group.

    Attributes:
        predictions: Answers given.
        errors: Requests that the runtime failed on.
        labelled: Answers for which a label came back.
        correct: Those of them that were right.
        latency: See `fleet.protocol.latency`.
        labels: What else is known of labels, see `fleet.protocol.labels`.
        profiles: Counts by feature, of each version: other versions have other edges.
    """

    predictions: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    latency: LatencyCounts = msgspec.field(default_factory=dict)
    labels: Labels = NO_LABELS
    profiles: dict[int, Profile] = msgspec.field(default_factory=dict)

    def add(self, window: TelemetryWindow) -> None:
        """Add a window, or windows added up."""
        try:
            profile = merge_profiles(self.profiles.get(window.version, {}), window.profile)
        except InvalidMessage:
            profile = self.profiles.get(window.version, {})  # of another layout: left out, as of the totals
        self.predictions += window.predictions
        self.errors += window.errors
        self.labelled += window.labelled
        self.correct += window.correct
        self.labels = self.labels.merged(window.label_counts)
        self.latency = merge_latency(self.latency, window.latency)
        self.profiles[window.version] = profile


class Group(NamedTuple):
    """Of what a sum is; in the order of answers.

    Attributes:
        start_s: Where the span begins.
        value: Of the grouping attribute, or the device's id; empty where there is none.
        version: None where versions are added up.
    """

    start_s: int
    value: str
    version: int | None


class Question(msgspec.Struct, frozen=True):
    """What is added up.

    Attributes:
        model: Name of the model; it exists.
        within: From when to when.
        resolution_s: Length of the spans that roll-ups are read in.
        key: ``all``, ``device``, or an attribute that cohorts are kept of.
        version: Only this one; None for all of them.
        devices: Only these, by id; None for the whole fleet.
        by_version: Whether versions are kept apart.
        whole: Whether all spans are added up, so that the answer has one.
        profiles: Whether profiles are added up as well; what needs none is answered ten times as fast.
        group_by: The hub's setting.
        now_s: Unix time: a span that has not ended is as long as it is until now.
    """

    model: str
    within: TimeRange
    resolution_s: int
    key: str = EVERY_DEVICE
    version: int | None = None
    devices: Mapping[str, DeviceRow] | None = None
    by_version: bool = False
    whole: bool = False
    profiles: bool = True
    group_by: tuple[str, ...] = ()
    now_s: float = math.inf

    def span_s(self, start_s: float) -> float:
        """Return the length of the span that begins at a time, up to now."""
        end_s = start_s + self.resolution_s
        if self.whole:
            start_s, end_s = self.within.aligned(self.resolution_s)
        return max(1.0, min(end_s, self.now_s) - start_s)


def checked_key(by: str, group_by: tuple[str, ...]) -> str:
    """Return what roll-ups are read by.

    Args:
        by: ``all``, ``device``, or an attribute.
        group_by: The hub's setting.

    Raises:
        InvalidInput: The fleet is not grouped by that attribute.
    """
    if by in {EVERY_DEVICE, ONE_DEVICE} or by in grouping(group_by):
        return by
    raise InvalidInput(
        f"The fleet is not grouped by {by!r:.80}.",
        remedy=f"Use device, version, or one of {', '.join(grouping(group_by))}; the hub's setting `group_by`"
        " names further attributes.",
    )


def sums(store: RollupStore, question: Question) -> dict[Group, Sum]:
    """Return the sums that answer a question, by group, in order.

    Args:
        store: Keeps roll-ups.
        question: What is added up.

    Raises:
        InvalidInput: The answer would be too large.
    """
    check_spans(question.within, question.resolution_s)
    if question.devices is not None and len(question.devices) > MAX_DEVICES:
        raise InvalidInput(
            f"{len(question.devices):,} devices are meant; {MAX_DEVICES:,} can be added up one by one.",
            remedy="Choose fewer devices, or leave the target out to ask of the whole fleet.",
        )
    name = _namer(question)
    found: dict[Group, Sum] = {}
    for read, row in enumerate(_rollups(store, question), start=1):
        if read > MAX_ROLLUPS:
            raise InvalidInput(
                f"The answer rests on more than {MAX_ROLLUPS:,} sums.",
                remedy="Ask for a shorter range, a coarser resolution, or fewer devices.",
            )
        group = Group(
            int(question.within.start_s) if question.whole else row.start_s,
            name(row),
            row.version if question.by_version else None,
        )
        found.setdefault(group, Sum()).add(row.window)
        if question.profiles and len(found) > MAX_PROFILES:
            raise InvalidInput(
                f"The answer has more than {MAX_PROFILES:,} distributions.",
                remedy="Group the fleet by an attribute, or ask for a shorter range or the resolution whole.",
            )
    return dict(sorted(found.items()))


def _namer(question: Question) -> Callable[[RollupRow], str]:
    """Return what gives a row's value of the grouping attribute."""
    devices = question.devices
    if devices is None or question.key == ONE_DEVICE:
        return lambda row: row.value
    if question.key == EVERY_DEVICE:
        return lambda _: ""
    values = {
        device_id: cohort_of(row, question.key, question.group_by) for device_id, row in devices.items()
    }
    return lambda row: values[row.value]


def cohort_of(row: DeviceRow, attribute: str, group_by: tuple[str, ...]) -> str:
    """Return the cohort of a device; empty if it is in none."""
    can = row.capabilities
    cohorts = cohorts_of(
        row.attributes, hardware=can.hardware, architecture=can.architecture, group_by=group_by
    )
    return cohorts.get(attribute, "")


def _rollups(store: RollupStore, question: Question) -> Iterator[RollupRow]:
    """Yield roll-ups, some of the spans of some of the devices at a time, to have few of them in memory."""
    within = question.within.aligned(question.resolution_s)
    devices = None if question.devices is None else sorted(question.devices)
    some: list[list[str] | None] = [None]
    if devices is not None:
        some = [devices[i : i + _DEVICES_AT_ONCE] for i in range(0, len(devices), _DEVICES_AT_ONCE)]
    for values in some:
        at_once_s = max(1, _ROLLUPS_AT_ONCE // len(values or "1")) * question.resolution_s
        start_s = within.start_s
        while start_s < within.end_s:
            end_s = min(within.end_s, start_s + at_once_s)
            yield from store.rollups(
                model=question.model,
                key=question.key if values is None else ONE_DEVICE,
                values=values,
                version=question.version,
                start_s=start_s,
                end_s=end_s,
                resolution_s=question.resolution_s,
                profiles=question.profiles,
            )
            start_s = end_s
