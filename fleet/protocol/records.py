"""What a device tells exactly once: the bodies of records.

A record is the message that carries one of them, see `fleet.protocol.messages`. It stays in the device's
outbox until the hub has stored it, and both keep its body in the form that `packed` gives it. The tag of a
body stands in the encoding and says which it is.
"""

from __future__ import annotations

from copy import copy
from typing import Annotated, TypeAlias

import msgspec

from fleet.drift.encoding import decode_profile, encode_profile
from fleet.drift.profile import FeatureCounts
from fleet.protocol.assignment import MAX_ALTERNATIVES, VariantPolicy
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.fields import Count, Microseconds, Text, UnixTime
from fleet.protocol.labels import NO_LABELS, Labels
from fleet.protocol.latency import LatencyCounts
from fleet.protocol.memory import MemoryCounts
from fleet.protocol.names import Name, Sha256
from fleet.protocol.noised import NoisedWindow

MAX_DIAGNOSTICS_SIZE_BYTES = 128 * 1024
"""Largest diagnostic bundle."""
MAX_PAIRS = 256
"""Most pairs of classes in a report of a shadow."""

ClassPairs = Annotated[
    tuple[tuple[Count, Count, Annotated[int, msgspec.Meta(ge=1, le=2**53)]], ...],
    msgspec.Meta(max_length=MAX_PAIRS),
]
"""Class of the active version, class of the candidate by its own numbers, on how many samples."""


class DeploymentReport(msgspec.Struct, frozen=True, tag="deployment"):
    """A deployment reached a state.

    Attributes:
        at_s: Device time, Unix seconds.
        deployment_id: From the assignment.
        model: Name of the model.
        version: The ordered version; 0 where the order is to remove the model.
        state: The state reached.
        cause: Why, for every failure.
    """

    at_s: UnixTime
    deployment_id: Name
    model: Name
    version: Count
    state: DeploymentState
    cause: Cause | None = None


class Incident(msgspec.Struct, frozen=True, tag="incident"):
    """Something that a person may have to know of and that belongs to no deployment.

    A refused assignment, a tampered chunk, a full disk.
    """

    at_s: UnixTime
    cause: Cause


class SealedWindow(msgspec.Struct, tag="window"):
    """What one version did over a span of time, as counts; its profile is not looked into.

    Attributes:
        started_at_s: Device time, Unix seconds.
        ended_at_s: Likewise.
        model: Name of the model.
        version: The version that answered.
        manifest_sha256: Its bundle.
        variant: Its variant.
        predictions: Answers given.
        errors: Requests that the runtime failed on.
        labelled: Answers for which a label came back.
        correct: Those of them that were right.
        latency: Duration of the runtime's work, see `fleet.protocol.latency`.
        profile: Counts by feature, see `fleet.drift.profile`; older agents send them so.
        counts: The same as it travels and is kept, see `fleet.drift.encoding`; nothing of it is checked.
        labels: What else is to say of labels; left out where it is nothing, and by older agents.
        memory: Memory that the agent had to itself when the window ended, see `fleet.protocol.memory`; a
            reading for each window that is in this one. Left out if it cannot be read, and by older agents.
    """

    started_at_s: UnixTime
    ended_at_s: UnixTime
    model: Name
    version: Count
    manifest_sha256: Sha256
    variant: Name
    predictions: Count = 0
    errors: Count = 0
    labelled: Count = 0
    correct: Count = 0
    latency: LatencyCounts = msgspec.field(default_factory=dict)
    profile: dict[Text, FeatureCounts] = msgspec.field(default_factory=dict)
    counts: bytes | msgspec.UnsetType = msgspec.UNSET
    labels: Labels | msgspec.UnsetType = msgspec.UNSET
    memory: MemoryCounts | msgspec.UnsetType = msgspec.UNSET

    @property
    def memory_counts(self) -> MemoryCounts:
        """What is said of memory."""
        return {} if self.memory is msgspec.UNSET else self.memory

    @property
    def label_counts(self) -> Labels:
        """What is said of labels."""
        return NO_LABELS if self.labels is msgspec.UNSET else self.labels


class TelemetryWindow(SealedWindow, tag="window"):
    """A window whose profile is read: what ``counts`` says is put into ``profile``, and not set any more.

    Raises:
        InvalidMessage: ``counts`` cannot be read.
    """

    def __post_init__(self) -> None:
        if self.counts is not msgspec.UNSET:
            self.profile, self.counts = decode_profile(self.counts), msgspec.UNSET


def opened(window: SealedWindow) -> TelemetryWindow:
    """Return a window with its profile read.

    Raises:
        InvalidMessage: It cannot be read.
    """
    if isinstance(window, TelemetryWindow):
        return window
    return TelemetryWindow(**msgspec.structs.asdict(window))


class Diagnostics(msgspec.Struct, frozen=True, tag="diagnostics"):
    """The diagnostic bundle that an operator asked for, see ``docs/guide/remote.md``.

    Attributes:
        at_s: Device time, Unix seconds.
        request_id: From the wishes of the assignment.
        data: JSON lines, compressed by gzip.
    """

    at_s: UnixTime
    request_id: Name
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_DIAGNOSTICS_SIZE_BYTES)]


class Candidate(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one variant did on a device, see `agent.life.choice`.

    Attributes:
        variant: Its name.
        runtime: The runtime that ran it.
        runtime_version: Version of that.
        size_bytes: Size of the model's file.
        median_us: Median duration of one inference; 0 if it was not measured.
        p90_us: Duration that nine of ten inferences did not exceed; likewise.
        cpu_us: CPU time of one inference, all threads together; likewise.
        cause: Why it cannot be chosen; None if it passed the golden inputs.
    """

    variant: Name
    runtime: Text
    runtime_version: Text
    size_bytes: Count
    median_us: Microseconds = 0.0
    p90_us: Microseconds = 0.0
    cpu_us: Microseconds = 0.0
    cause: Cause | None = None


class Measurement(msgspec.Struct, frozen=True, tag="measurement"):
    """What a device measured to choose a variant, and which it chose.

    Attributes:
        at_s: Device time, Unix seconds.
        deployment_id: For which it was done.
        model: Name of the model.
        version: The ordered version.
        manifest_sha256: Its bundle.
        architecture: As in `Capabilities`; with the next two the device's class.
        hardware: Likewise.
        runtimes: Likewise.
        policy: By what the variant was chosen.
        candidates: Every variant that was tried.
        chosen: The variant that was chosen; None if none passed.
    """

    at_s: UnixTime
    deployment_id: Name
    model: Name
    version: Count
    manifest_sha256: Sha256
    architecture: Text
    hardware: Text
    runtimes: dict[Name, Text]
    policy: VariantPolicy
    candidates: Annotated[tuple[Candidate, ...], msgspec.Meta(min_length=1, max_length=MAX_ALTERNATIVES + 1)]
    chosen: Name | None


class ShadowReport(msgspec.Struct, frozen=True, tag="shadow"):
    """What a candidate did in the shadow of the active version, see `fleet.protocol.shadow`.

    Attributes:
        started_at_s: Device time, Unix seconds.
        ended_at_s: Likewise.
        deployment_id: From the assignment.
        model: Name of the model.
        active_version: The version that answered.
        version: The candidate.
        manifest_sha256: The candidate's bundle.
        compared: Samples that both computed.
        disagreed: Those of them on which they disagree.
        errors: Requests that the candidate failed on.
        not_finite: Requests that it answered with values that are not finite.
        left_out: Requests that it was not given, to stay within its budget.
        active_latency: Duration of the runtime's work on what was compared, see `fleet.protocol.latency`.
        candidate_latency: The candidate's on the same requests.
        pairs: How they disagree, if they are classifiers.
    """

    started_at_s: UnixTime
    ended_at_s: UnixTime
    deployment_id: Name
    model: Name
    active_version: Count
    version: Count
    manifest_sha256: Sha256
    compared: Count = 0
    disagreed: Count = 0
    errors: Count = 0
    not_finite: Count = 0
    left_out: Count = 0
    active_latency: LatencyCounts = msgspec.field(default_factory=dict)
    candidate_latency: LatencyCounts = msgspec.field(default_factory=dict)
    pairs: ClassPairs = ()


RecordBody: TypeAlias = (
    DeploymentReport | Incident | TelemetryWindow | NoisedWindow | Diagnostics | Measurement | ShadowReport
)
"""What a record can hold; its tag says which."""


def packed(body: RecordBody) -> RecordBody:
    """Return the form in which a record's body is kept and sent: a window's profile takes its short one."""
    if not isinstance(body, TelemetryWindow) or not body.profile:
        return body
    short = copy(body)  # replacing fields would unpack it again
    short.profile, short.counts = {}, encode_profile(body.profile)
    return short
