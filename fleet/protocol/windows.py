"""Adding telemetry windows: on the device when its outbox is full, on the hub for totals."""

from __future__ import annotations

from fleet.drift.profile import merge_profiles
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.latency import merge_latency
from fleet.protocol.messages import TelemetryWindow


def merge_windows(left: TelemetryWindow, right: TelemetryWindow) -> TelemetryWindow:
    """Return the window that covers both.

    Args:
        left: A window.
        right: Another of the same bundle; where they differ in the variant, this one's is kept.

    Raises:
        InvalidMessage: They are of different bundles, or their counts have different layouts.
    """
    if left.manifest_sha256 != right.manifest_sha256:
        raise InvalidMessage("Telemetry windows of different bundles cannot be added.")
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
    )
