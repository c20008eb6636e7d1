"""The messages between devices and hub, and their encoding: MessagePack, validated while decoding.

Which message travels on which topic stands in `fleet.protocol.topics`. Every message can be lost, doubled
or late. What matters is therefore either repeated (state) or kept by the device until the hub
acknowledges it by number (records). Fields that a release does not know are ignored, so that hub and
devices can be updated one after the other.
"""

from __future__ import annotations

from copy import copy
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from fleet.drift.encoding import decode_profile, encode_profile
from fleet.drift.profile import FeatureCounts
from fleet.protocol.assignment import MAX_ALTERNATIVES, VariantPolicy
from fleet.protocol.chunks import MAX_RANGES
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, InvalidMessage, MessageTooLarge
from fleet.protocol.latency import LatencyCounts
from fleet.protocol.names import Name, Sha256

PROTOCOL_VERSION = 1
MAX_MESSAGE_SIZE_BYTES = 256 * 1024
MAX_PACKET_SIZE_BYTES = MAX_MESSAGE_SIZE_BYTES + 1024
"""Largest MQTT packet that either side or a broker takes in: a message and what MQTT puts before it. That is
5 bytes of header, 4 of lengths and numbers, and a topic, which with its names stays below 200."""
FILE_PART_SIZE_BYTES = 64 * 1024
"""Most bytes of a trust metadata file in one answer."""
MAX_DIAGNOSTICS_SIZE_BYTES = 128 * 1024
"""Largest diagnostic bundle."""

MAX_PAIRS = 256
"""Most pairs of classes in a report of a shadow."""

Text = Annotated[str, msgspec.Meta(max_length=1024)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Duration = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""Microseconds."""
UnixTime = Annotated[float, msgspec.Meta(ge=0, le=2**40)]
Stream = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
ClassPairs = Annotated[
    tuple[tuple[Count, Count, Annotated[int, msgspec.Meta(ge=1, le=2**53)]], ...],
    msgspec.Meta(max_length=MAX_PAIRS),
]
"""Class of the active version, class of the candidate by its own numbers, on how many samples."""


class Capabilities(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device can run.

    Attributes:
        agent_version: Release of the agent.
        architecture: As ``platform.machine()`` names it, such as ``aarch64``.
        runtimes: Inference runtimes and their versions.
        memory_bytes: The most that the agent may have: physical memory, or what a control group allows.
        free_bytes: Free space where models are installed.
        hardware: The board, or else the processor, as the system names it; empty from agents that do not
            choose among alternatives.
        obeys_wishes: Whether it carries out the wishes of an assignment, see `fleet.protocol.wishes`; one
            that does not would refuse an assignment that has some.
    """

    agent_version: Text
    architecture: Text
    runtimes: dict[Name, Text]
    memory_bytes: Count
    free_bytes: Count
    hardware: Text = ""
    obeys_wishes: bool = False


class ModelState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device holds of one model.

    Attributes:
        model: Name of the model.
        version: The version that answers now; None before the first.
        manifest_sha256: Its bundle; None before the first.
        variant: Its variant; None before the first.
        phase: Where the device is in its life cycle, see ``docs/reference/device-life.md``.
        deployment_id: The order it carried out last, or works on.
        waiting_for: What stands against swapping the staged version in now; None if nothing does.
    """

    model: Name
    version: Count | None
    manifest_sha256: Sha256 | None
    variant: Name | None
    phase: Text
    deployment_id: Name | None
    waiting_for: Text | None = None


class Hello(msgspec.Struct, frozen=True):
    """Sent after each connection to the broker. The hub answers with the current assignment if it is newer.

    Attributes:
        protocol: Version of the protocol.
        sequence: Highest assignment sequence number accepted; 0 for none.
        capabilities: What the device can run.
    """

    protocol: Count
    sequence: Count
    capabilities: Capabilities


class StateReport(msgspec.Struct, frozen=True):
    """The heartbeat: what the device runs now. Repeats itself, so none of them is precious.

    Attributes:
        at_s: Device time, Unix seconds.
        sequence: Highest assignment sequence number accepted.
        models: State of each model.
        unacknowledged_records: Records that wait in the outbox.
    """

    at_s: UnixTime
    sequence: Count
    models: Annotated[tuple[ModelState, ...], msgspec.Meta(max_length=64)]
    unacknowledged_records: Count = 0


class Presence(msgspec.Struct, frozen=True):
    """Whether the device is connected; ``online=False`` is the connection's last will."""

    online: bool


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


class TelemetryWindow(msgspec.Struct, tag="window"):
    """What one version did over a span of time, as counts.

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
        profile: Counts by feature, see `fleet.drift.profile`.
        counts: The same as it travels and is kept, see `fleet.drift.encoding`: where it is given, decoding
            puts what it says into ``profile``, and it is not set any more. Older agents send ``profile``.
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

    def __post_init__(self) -> None:
        if self.counts is not msgspec.UNSET:
            self.profile, self.counts = decode_profile(self.counts), msgspec.UNSET


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
    median_us: Duration = 0.0
    p90_us: Duration = 0.0
    cpu_us: Duration = 0.0
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
    DeploymentReport | Incident | TelemetryWindow | Diagnostics | Measurement | ShadowReport
)
"""What a record can hold; its tag says which."""


class Record(msgspec.Struct, frozen=True):
    """One entry of the device's outbox: sent until acknowledged, stored by the hub exactly once.

    Attributes:
        stream: Drawn when the outbox was created: numbers of a new outbox are not taken for old ones.
        number: Rises within the stream. (stream, number) identifies the record for ever.
        body: The contents.
    """

    stream: Stream
    number: Count
    body: RecordBody


class Ack(msgspec.Struct, frozen=True):
    """The hub has stored these records; the device may forget them."""

    stream: Stream
    numbers: Annotated[tuple[Count, ...], msgspec.Meta(max_length=1024)]


class Want(msgspec.Struct, frozen=True):
    """Chunks of one blob that the device still misses, as ``(first, count)`` ranges."""

    sha256: Sha256
    missing: Annotated[tuple[tuple[Count, Count], ...], msgspec.Meta(max_length=MAX_RANGES)]


class FetchRequest(msgspec.Struct, frozen=True):
    """Ask for a part of a file of the image repository.

    Attributes:
        request_id: Returned with the answer.
        path: ``metadata/…`` or ``targets/…``, relative to the repository.
        offset: First byte wanted.
    """

    request_id: Count
    path: Text
    offset: Count = 0


class FileAnswer(msgspec.Struct, frozen=True):
    """A part of a file, at most `FILE_PART_SIZE_BYTES`.

    Attributes:
        request_id: From the request.
        size_bytes: Size of the whole file; None if there is no such file.
        data: The bytes from the requested offset on.
    """

    request_id: Count
    size_bytes: Count | None
    data: bytes = b""


_Message = TypeVar("_Message", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """Return the message's bytes."""
    return msgspec.msgpack.encode(message)


def packed(body: RecordBody) -> RecordBody:
    """Return the form in which a record's body is kept and sent: a window's profile takes its short one."""
    if not isinstance(body, TelemetryWindow) or not body.profile:
        return body
    short = copy(body)  # replacing fields would unpack it again
    short.profile, short.counts = {}, encode_profile(body.profile)
    return short


def decode(data: bytes, kind: type[_Message]) -> _Message:
    """Return the message in the bytes.

    Args:
        data: What was received.
        kind: The message that the topic carries.

    Raises:
        MessageTooLarge: It is larger than any message may be.
        InvalidMessage: It is not such a message.
    """
    if len(data) > MAX_MESSAGE_SIZE_BYTES:
        raise MessageTooLarge(
            f"A {kind.__name__} of {len(data)} bytes was received; {MAX_MESSAGE_SIZE_BYTES} are allowed."
        )
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"A {kind.__name__} cannot be understood: {error}.") from error


# msgspec learns a type at its first use, and crashes if two threads use it first at once: so it learns here.
for _kind in (Hello, StateReport, Presence, Record, Want, FetchRequest, FileAnswer, Ack):
    msgspec.msgpack.Decoder(_kind)
