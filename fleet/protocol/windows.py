"""Telemetry windows: checked on arrival, added on a device with a full outbox and on the hub for totals."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fleet.drift.encoding import MAX_SENT_COUNT
from fleet.drift.features import OUTPUT_CONFIDENCE
from fleet.drift.profile import ReferenceProfile, check_counts, merge_profiles
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.labels import NO_LABELS
from fleet.protocol.latency import merge_latency
from fleet.protocol.records import SealedWindow, TelemetryWindow

MAX_REQUESTS_PER_S = 1e6
"""More cannot be: a device that claims more would outweigh all others in a comparison."""
MAX_REQUESTS = MAX_SENT_COUNT
"""Most in one window, whatever time it claims to cover, and in a sum of windows: a year at the rate above. A
sum that is too large to be read again would keep people from everything that is stored with it."""
EARLIEST_S = 1_577_836_800.0
"""2020-01-01, before there was any agent: a clock that lost its battery begins in 1970 or 2000."""
MAX_DELAY_S = 400 * 86400.0
"""A device may be away for a year; its outbox holds less."""
MAX_AHEAD_S = 600.0
"""How far a clock may be ahead of the hub's."""


def merge_windows(left: TelemetryWindow, right: TelemetryWindow) -> TelemetryWindow:
    """Return the window that covers both.

    Args:
        left: A window.
        right: Another of the same bundle; where they differ in the variant, this one's is kept.

    Raises:
        InvalidMessage: They are of different bundles, their counts have different layouts, or the sum is more
            than any device can have done.
    """
    if left.manifest_sha256 != right.manifest_sha256:
        raise InvalidMessage("Telemetry windows of different bundles cannot be added.")
    labels = left.label_counts.merged(right.label_counts)
    memory = merge_latency(left.memory_counts, right.memory_counts)
    labelled = max(left.labelled + right.labelled, labels.unknown)
    if max(_requests(left) + _requests(right), labelled) > MAX_REQUESTS:
        raise InvalidMessage(f"Telemetry windows of more than {MAX_REQUESTS} requests cannot be added.")
    return TelemetryWindow(
        started_at_s=min(left.started_at_s, right.started_at_s),
        ended_at_s=max(left.ended_at_s, right.ended_at_s),
        model=right.model,
        version=right.version,
        manifest_sha256=right.manifest_sha256,
        variant=right.variant,
        predictions=left.predictions + right.predictions,
        errors=left.errors + right.errors,
        labelled=left.labelled + right.labelled,
        correct=left.correct + right.correct,
        latency=merge_latency(left.latency, right.latency),
        profile=merge_profiles(left.profile, right.profile),
        labels=msgspec.UNSET if labels == NO_LABELS else labels,
        memory=memory or msgspec.UNSET,
    )


def check_window(window: TelemetryWindow, manifest_sha256: str, reference: ReferenceProfile) -> None:
    """Check that a window is of this bundle and in its layout, so that it can be added to others of it.

    Args:
        window: What a device sent.
        manifest_sha256: Digest of the bundle of the version that the window names.
        reference: The reference profile of that version.

    Raises:
        InvalidMessage: It is not.
    """
    cells = {feature.name: len(feature.cells) for feature in reference.features}
    check_head(window, manifest_sha256, cells)
    for name, counts in window.profile.items():
        if len(counts.cells) != cells.get(name):
            raise InvalidMessage(f"The window has {len(counts.cells)} cells for {name!r:.80}.")
        check_counts(counts)


def check_head(window: SealedWindow, manifest_sha256: str, cells: Mapping[str, int]) -> None:
    """Check all of a window but its profile.

    Args:
        window: What a device sent.
        manifest_sha256: Digest of the bundle of the version that the window names.
        cells: How many each feature of the version has.

    Raises:
        InvalidMessage: It is not of this bundle.
    """
    if window.manifest_sha256 != manifest_sha256:
        raise InvalidMessage(
            f"The window is of bundle {window.manifest_sha256[:12]}…; "
            f"{window.model} version {window.version} is {manifest_sha256[:12]}…."
        )
    window.label_counts.check(cells.get(OUTPUT_CONFIDENCE))


def contradiction(window: SealedWindow) -> str | None:
    """Return why the window cannot be true; None if it can.

    Of a sealed window the profile is not looked at. Such a window counts for nothing. It is kept all the
    same, because a canary that talks nonsense is evidence of its own kind, see `fleet.rollout.gates.gate`.
    """
    if window.ended_at_s < window.started_at_s:
        return "it ends before it starts"
    if window.correct > window.labelled:  # labels may come in a later window than their answers
        return f"{window.correct} of {window.labelled} labelled answers are correct"
    durations, requests = sum(window.latency.values()), _requests(window)
    most = max(requests, window.labelled)
    if window.labels is not msgspec.UNSET:
        most = max(most, window.labels.unknown)
        if (why := window.labels.contradiction(window.labelled, window.correct)) is not None:
            return why
    if window.memory is not msgspec.UNSET:
        most = max(most, sum(window.memory.values()))
    why = impossible(most, window.ended_at_s - window.started_at_s)
    if why is not None:
        return why
    if durations > requests:
        return f"{durations} durations for {requests} requests"
    for name, counts in window.profile.items():
        counted = counts.total + counts.missing
        if counted > window.predictions:
            return f"{counted} values of {name!r:.80} for {window.predictions} answers"
    return None


def is_misdated(ended_at_s: float, received_at_s: float) -> bool:
    """Return whether a device's clock cannot be believed as to when a window ended.

    Such a window counts as of when it was received: what it says is as true as ever, only its time is not.

    Args:
        ended_at_s: By the device's clock.
        received_at_s: By the hub's.
    """
    earliest_s = max(EARLIEST_S, received_at_s - MAX_DELAY_S)
    return not earliest_s <= ended_at_s <= received_at_s + MAX_AHEAD_S


def impossible(requests: int, duration_s: float) -> str | None:
    """Return why there cannot have been so many requests, or labels, in a time; None if there can."""
    if requests > min(MAX_REQUESTS, MAX_REQUESTS_PER_S * (1.0 + duration_s)):
        return f"{requests} requests in {duration_s:.1f} s"
    return None


def _requests(window: SealedWindow) -> int:
    return window.predictions + window.errors
